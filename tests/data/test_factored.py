"""A factored matrix is its product in everything but cost."""

import pickle
from typing import Any, Final

import attrs
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.func import grad, jvp, vmap

from funlens.data import FactoredMatrix
from funlens.errors import DtypeError, OptionError, ShapeError

TOLERANCE: Final = 1e-8  # float64; decompositions of at most 6 by 6, squared at worst


@attrs.frozen(kw_only=True)
class Drawn:
    """Small numbers that say which matrices to make."""

    batch: tuple[int, ...]
    row: int
    mid: int
    column: int
    seed: int

    def tensor(self, *shape: int) -> Tensor:
        """Draw normal numbers."""
        generator = torch.Generator().manual_seed(self.seed)
        return torch.randn(shape, generator=generator, dtype=torch.float64)

    def matrix(self) -> FactoredMatrix:
        """Draw both factors."""
        left = self.tensor(*self.batch, self.row, self.mid)
        right = self.tensor(self.mid + 1, *self.batch, self.mid, self.column)[-1]
        return FactoredMatrix(left, right)


size = st.integers(1, 6)
drawn = st.builds(
    Drawn,
    batch=st.lists(st.integers(1, 3), max_size=2).map(tuple),
    row=size,
    mid=size,
    column=size,
    seed=st.integers(0, 99),
)
square = drawn.map(lambda one: attrs.evolve(one, column=one.row))


def close(expected: Tensor, found: Any) -> None:
    """Compare shapes and numbers."""
    dense = found.AB if isinstance(found, FactoredMatrix) else found
    torch.testing.assert_close(dense, expected, atol=TOLERANCE, rtol=0)


@pytest.mark.property
@given(drawn)
def test_shape_transpose_and_pair_are_those_of_the_product(one: Drawn) -> None:
    """What is said of the product holds of it."""
    matrix = one.matrix()
    dense = matrix.A @ matrix.B
    assert (tuple(dense.shape), dense.ndim) == (matrix.shape, matrix.ndim)
    assert (matrix.A, matrix.B) == matrix.pair
    close(dense, matrix)
    close(dense.mT, matrix.T)


@pytest.mark.property
@given(drawn, size)
def test_products_on_both_sides(one: Drawn, width: int) -> None:
    """Tensors, vectors and other factored matrices, from the left and the right."""
    matrix = one.matrix()
    dense = matrix.AB
    right = one.tensor(*one.batch, one.column, width)
    left = one.tensor(width, one.row)
    other = FactoredMatrix(one.tensor(one.column, width), one.tensor(width, 2))
    close(dense @ right, matrix @ right)
    close(left @ dense, left @ matrix)
    close(dense @ other.AB, matrix @ other)
    close(other.AB.mT @ dense.mT, other.T @ matrix.T)
    close(dense @ right.flatten()[: one.column], matrix @ right.flatten()[: one.column])
    close(left[0] @ dense, left[0] @ matrix)
    close(2.5 * dense, 2.5 * matrix)
    close(dense * 2.5, matrix * torch.tensor(2.5))


@pytest.mark.property
@given(drawn)
def test_products_go_through_the_smaller_middle(one: Drawn) -> None:
    """The middle of a product of two is the smaller one of theirs."""
    matrix = one.matrix()
    other = FactoredMatrix(one.tensor(one.column, 3), one.tensor(3, 4))
    product = matrix @ other
    assert min(one.mid, 3) == product.A.shape[-1]


@pytest.mark.property
@given(drawn)
def test_singular_values_are_the_products(one: Drawn) -> None:
    """The parts put the product together; the values are the dense matrix's."""
    matrix = one.matrix()
    left, values, right = matrix.svd()
    rank = min(one.row, one.mid, one.column)
    close(matrix.AB, left @ torch.diag_embed(values) @ right)
    close(torch.linalg.svdvals(matrix.AB)[..., :rank], values)
    eye = torch.eye(rank, dtype=torch.float64).expand(*one.batch, rank, rank)
    close(eye, left.mT @ left)
    close(eye, right @ right.mT)
    for part, found in zip((left, values, right), ("U", "S", "Vh"), strict=True):
        close(part, getattr(matrix, found))


@pytest.mark.property
@given(drawn)
def test_norm_and_collapses_are_the_products(one: Drawn) -> None:
    """Norm, Gram matrices of both collapses, and the even factors."""
    matrix = one.matrix()
    dense = matrix.AB
    close(torch.linalg.matrix_norm(dense), matrix.norm())
    left, right = matrix.collapse_r(), matrix.collapse_l()
    close(dense @ dense.mT, left @ left.mT)
    close(dense.mT @ dense, right.mT @ right)
    even = matrix.make_even()
    close(dense, even)
    close(even.A.mT @ even.A, even.B @ even.B.mT)


@pytest.mark.property
@given(square)
def test_eigenvalues_are_the_products(one: Drawn) -> None:
    """The largest ones of the dense matrix, which has zeros beside."""
    matrix = one.matrix()
    found = matrix.eigenvalues
    rank = min(one.row, one.mid)
    assert (*one.batch, rank) == tuple(found.shape)
    dense = torch.linalg.eigvals(matrix.AB)
    order = dense.abs().argsort(dim=-1, descending=True)[..., :rank]
    for power in (1, 2):  # eigenvalues have no order: compare their power sums
        expected = (dense.gather(-1, order) ** power).sum(-1)
        torch.testing.assert_close((found**power).sum(-1), expected, atol=1e-6, rtol=0)
    if one.row == one.column:
        close(matrix.B @ matrix.A, matrix.BA)


INDICES: Final = (
    0,
    -1,
    slice(1),
    ...,
    (0, 1),
    (..., 1),
    (..., 2, slice(None)),
    (..., -1, -2),
    (slice(None), 0, [0, 2], slice(1, 3)),
    (..., torch.tensor([0, 0, 1]), slice(None)),
    (torch.tensor([1, 0]), torch.tensor([2, 0])),
    (0, ..., torch.tensor([3, 1])),
    (0, 1, 2, 3),
)


def kept(index: Any, ndim: int) -> Any:
    """The same index of a dense tensor, with numbers for rows and columns as slices."""
    given = index if isinstance(index, tuple) else (index,)
    if len([one for one in given if one is not ...]) == ndim or (
        given[0] is ... and len(given) == 3
    ):
        ends = [
            slice(one, one + 1 or None) if isinstance(one, int) else one
            for one in given[-2:]
        ]
        return (*given[:-2], *ends)
    if given[0] is ... and len(given) == 2:
        one = given[1]
        return (..., slice(one, one + 1) if isinstance(one, int) else one)
    return given


@pytest.mark.parametrize("index", INDICES, ids=str)
def test_indexing_is_the_products(index: Any) -> None:
    """Leading axes, rows and columns, by numbers, slices and tensors."""
    one = Drawn(batch=(2, 3), row=4, mid=2, column=5, seed=0)
    matrix = one.matrix()
    dense = matrix.AB[kept(index, matrix.ndim)]
    close(dense, matrix[index])


@pytest.mark.parametrize(
    ("index", "problem"),
    [
        ((0, 0, 0, 0, 0), "5 entries for 4 axes"),
        ((..., 0, ...), "entries for 4 axes"),
        ((..., 4, 0), "row 4 of 4"),
        ((..., -6), "column -6 of 5"),
        (None, "None selects nothing"),
        (True, "True selects nothing"),
        ("head", "'head' selects nothing"),
    ],
    ids=str,
)
@pytest.mark.usefixtures("unchecked")
def test_an_index_that_does_not_fit_is_refused(index: Any, problem: str) -> None:
    """Nothing is clipped or wrapped."""
    matrix = Drawn(batch=(2, 3), row=4, mid=2, column=5, seed=0).matrix()
    with pytest.raises(OptionError) as caught:
        matrix[index]
    assert problem in str(caught.value)


def test_leading_axes_broadcast_without_copies() -> None:
    """A stack times one matrix holds that matrix once."""
    one = Drawn(batch=(), row=4, mid=2, column=5, seed=0)
    stack, single = one.tensor(3, 4, 2), one.tensor(2, 5)
    matrix = FactoredMatrix(stack, single)
    close(stack @ single, matrix)
    assert (3, 4, 5) == matrix.shape
    assert single.untyped_storage().data_ptr() == matrix.B.untyped_storage().data_ptr()


def test_unsqueeze_puts_a_leading_axis_in() -> None:
    """Between leading axes, and not behind the rows."""
    matrix = Drawn(batch=(2, 3), row=4, mid=2, column=5, seed=0).matrix()
    for axis in range(3):
        close(matrix.AB.unsqueeze(axis), matrix.unsqueeze(axis))
    with pytest.raises(OptionError, match="no leading axis"):
        matrix.unsqueeze(3)


def test_corner_is_the_products() -> None:
    """The first entries of each axis."""
    matrix = Drawn(batch=(2, 6), row=5, mid=2, column=4, seed=0).matrix()
    close(matrix.AB[:3, :3, :3, :3], matrix.get_corner())
    close(matrix.AB[:2, :2, :2, :2], matrix.get_corner(2))


@pytest.mark.usefixtures("unchecked")
def test_factors_that_do_not_fit_are_refused() -> None:
    """The error has both shapes, or both dtypes."""
    with pytest.raises(ShapeError) as caught:
        FactoredMatrix(torch.ones(4, 2), torch.ones(3, 5))
    assert ((3, 5), (2, 5)) == (caught.value.shape, caught.value.expected)
    with pytest.raises(ShapeError, match="leading axes"):
        FactoredMatrix(torch.ones(2, 4, 2), torch.ones(3, 2, 5))
    with pytest.raises(DtypeError, match="float64"):
        FactoredMatrix(torch.ones(4, 2), torch.ones(2, 5, dtype=torch.float64))
    with pytest.raises(OptionError, match="no matrix"):
        FactoredMatrix(torch.ones(2), torch.ones(2, 5))
    with pytest.raises(OptionError, match="one number"):
        FactoredMatrix(torch.ones(4, 2), torch.ones(2, 5)) * torch.ones(4)
    wide = FactoredMatrix(torch.ones(4, 2), torch.ones(2, 5))
    for question in ("BA", "eigenvalues"):
        with pytest.raises(ShapeError, match="the matrix"):
            getattr(wide, question)


def test_half_precision_decomposes_in_float32() -> None:
    """LAPACK has no half precision; the answer is float32's."""
    one = Drawn(batch=(2,), row=4, mid=2, column=4, seed=0)
    half = FactoredMatrix(one.matrix().A.bfloat16(), one.matrix().B.bfloat16())
    single = FactoredMatrix(half.A.float(), half.B.float())
    torch.testing.assert_close(half.S, single.S, atol=0, rtol=0)
    assert torch.float32 == half.norm().dtype
    assert torch.complex64 == half.eigenvalues.dtype


def test_crosses_torch_func() -> None:
    """As an argument and a result of `vmap`, under `grad` and `jvp`."""
    one = Drawn(batch=(3,), row=4, mid=2, column=4, seed=0)
    matrix = one.matrix()

    def twice(single: FactoredMatrix) -> tuple[FactoredMatrix, Tensor, Tensor]:
        return single @ single, single.norm(), single.svd().S

    product, norms, values = vmap(twice)(matrix)
    close(matrix.AB @ matrix.AB, product)
    close(matrix.norm(), norms)
    close(matrix.S, values)

    def size_of(left: Tensor) -> Tensor:
        return (FactoredMatrix(left, matrix.B).norm() ** 2).sum()

    close(2 * matrix.AB @ matrix.B.mT, grad(size_of)(matrix.A))
    _, slope = jvp(size_of, (matrix.A,), (matrix.A,))
    close(2 * size_of(matrix.A), slope)


def test_repr_is_short_and_names_no_numbers() -> None:
    """Shape, middle and dtype."""
    matrix = Drawn(batch=(2, 3), row=4, mid=2, column=5, seed=0).matrix()
    assert "FactoredMatrix([2, 3, 4, 5] through 2, float64)" == repr(matrix)


def test_pickles() -> None:
    """It may go to another process."""
    matrix = Drawn(batch=(2,), row=4, mid=2, column=5, seed=0).matrix()
    again = pickle.loads(pickle.dumps(matrix))  # noqa: S301 -- our own bytes
    close(matrix.AB, again)
