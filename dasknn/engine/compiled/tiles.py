"""Products of small matrices, a tile of the result at a time in registers.

BLAS copies both matrices into an order of its own first, which takes up to half of the time where they are
small. Here nothing is copied: a tile of up to 6 rows and 16 columns is summed in registers, from the rows of
the right matrix and single numbers of the left one. The last tile of a row or column overlaps the one before.

Each number is a chain of fused multiplications and additions, in one order whatever the tile: so they are the
same bits on every processor that has the instruction.
"""

from __future__ import annotations

import platform

from llvmlite import binding, ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from dasknn.engine.compiled.arithmetic import compiled

# Without the instruction, each multiplication would be a call.
HAS_FMA = platform.machine() not in ("x86_64", "AMD64") or "fma" in {
    name for name, is_there in binding.get_host_cpu_features().items() if is_there
}
_ROWS = 6
# Bytes of the widest vectors, in which numbers of a row of the result lie side by side.
_BYTES = 32


def _tile(rows, vectors, share=1):
    """Return a function that computes a tile of some rows, and some vectors of _BYTES / share bytes wide."""

    @intrinsic
    def tile(typingctx, a, a_at, a_row, a_column, b, b_at, c, c_at, width_of_c, length):
        """Write a tile of c at c_at: `length` products for each number; b and c have rows of one width."""
        size = c.dtype.bitwidth // 8
        width = _BYTES // size // share
        signature = types.void(a, a_at, a_row, a_column, b, b_at, c, c_at, width_of_c, length)

        def codegen(context, builder, signature, args):
            number, i32, i64 = context.get_value_type(c.dtype), ir.IntType(32), ir.IntType(64)
            vector = ir.VectorType(number, width)
            fma = cgutils.get_or_insert_function(
                builder.module, ir.FunctionType(vector, [vector] * 3), f"llvm.fma.v{width}f{8 * size}"
            )
            undefined, zero = ir.Constant(vector, ir.Undefined), ir.Constant(vector, [0.0] * width)
            first_of_all = ir.Constant(ir.VectorType(i32, width), None)

            def begin(array, at):
                data = context.make_array(signature.args[array])(context, builder, args[array]).data
                return builder.gep(data, [args[at]])

            def vector_at(pointer, offset):
                return builder.bitcast(builder.gep(pointer, [offset]), vector.as_pointer())

            def steps(n):
                return ir.Constant(i64, n)

            left, right, result = begin(0, 1), begin(4, 5), begin(6, 7)
            # The compiler keeps these in registers.
            sums = [[cgutils.alloca_once(builder, vector) for _ in range(vectors)] for _ in range(rows)]
            for of_row in sums:
                for one in of_row:
                    builder.store(zero, one)
            with cgutils.for_range(builder, args[9]) as loop:
                columns = []
                for v in range(vectors):
                    offset = builder.add(builder.mul(loop.index, args[8]), steps(v * width))
                    columns.append(builder.load(vector_at(right, offset)))
                    columns[-1].align = size
                for i in range(rows):
                    offset = builder.mul(loop.index, args[3])
                    offset = builder.add(offset, builder.mul(args[2], steps(i)))
                    one = builder.load(builder.gep(left, [offset]))
                    one = builder.insert_element(undefined, one, ir.Constant(i32, 0))
                    factor = builder.shuffle_vector(one, undefined, first_of_all)
                    for v in range(vectors):
                        found = builder.call(fma, [factor, columns[v], builder.load(sums[i][v])])
                        builder.store(found, sums[i][v])
            for i in range(rows):
                for v in range(vectors):
                    offset = builder.add(builder.mul(args[8], steps(i)), steps(v * width))
                    builder.store(builder.load(sums[i][v]), vector_at(result, offset)).align = size
            return context.get_dummy_value()

        return signature, codegen

    return tile


_wide_tile, _wide_row = _tile(_ROWS, 2), _tile(1, 2)
_tile_of_vector, _row_of_vector = _tile(_ROWS, 1), _tile(1, 1)
_narrow_tile, _narrow_row = _tile(_ROWS, 1, 2), _tile(1, 1, 2)


@compiled
def fits(n, k, m, most, bytes_of_number):
    """Return whether a product of n * k * m steps is small, and the result wide enough for vectors."""
    return HAS_FMA and 2 * m * bytes_of_number >= _BYTES and n * k * m <= most


@compiled
def multiply_small(A, row, column, B, C, n, k, m):
    """C (n, m) = A (n, k) @ B (k, m), flat; A[i, j] is at A[i * row + j * column]."""
    width = _BYTES // C.itemsize
    columns = 2 * width if m >= 2 * width else (width if m >= width else width // 2)
    rows = _ROWS if n >= _ROWS else 1
    for part in range((m + columns - 1) // columns):
        j = min(part * columns, m - columns)
        for block in range((n + rows - 1) // rows):
            i = min(block * rows, n - rows)
            a, c = i * row, i * m + j
            if columns == 2 * width:
                if rows == _ROWS:
                    _wide_tile(A, a, row, column, B, j, C, c, m, k)
                else:
                    _wide_row(A, a, row, column, B, j, C, c, m, k)
            elif columns == width:
                if rows == _ROWS:
                    _tile_of_vector(A, a, row, column, B, j, C, c, m, k)
                else:
                    _row_of_vector(A, a, row, column, B, j, C, c, m, k)
            elif rows == _ROWS:
                _narrow_tile(A, a, row, column, B, j, C, c, m, k)
            else:
                _narrow_row(A, a, row, column, B, j, C, c, m, k)
