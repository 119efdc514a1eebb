"""`FactoredMatrix`: a product of two matrices that is never multiplied out."""

from collections.abc import Sequence
from types import EllipsisType
from typing import Any, Final, NamedTuple, TypeAlias, overload

import attrs
import torch
from jaxtyping import Complex, Float
from torch import Tensor

from funlens.errors import DtypeError, OptionError, ShapeError

_Index: TypeAlias = int | slice | Tensor | Sequence[int] | EllipsisType
_BYTES_OF_FLOAT: Final = 4  # LAPACK has nothing narrower

_torch: Final[Any] = torch  # some of its functions have no types


class Svd(NamedTuple):
    """A singular value decomposition: `U @ diag(S) @ Vh`.

    Attributes:
        U: Left singular vectors, `[..., row, rank]`.
        S: Singular values, largest first, `[..., rank]`.
        Vh: Right singular vectors, one in each row, `[..., rank, column]`.
    """

    U: Tensor
    S: Tensor
    Vh: Tensor


@attrs.frozen(eq=False, repr=False)
class FactoredMatrix:
    """The matrix `A @ B`, kept as its factors.

    Made for matrices of low rank, such as the `[d_model, d_model]` of a head, which
    passes through `d_head` numbers. Nothing but `AB` and `get_corner` multiplies out.
    Leading axes are stacks of matrices; those of the factors broadcast.

    Attributes:
        A: Left factor, `[..., row, mid]`.
        B: Right factor, `[..., mid, column]`.

    Examples:
        >>> import torch
        >>> from funlens import FactoredMatrix
        >>> product = FactoredMatrix(torch.ones(5, 2), torch.ones(2, 3))
        >>> product
        FactoredMatrix([5, 3] through 2, float32)
        >>> (product.T @ torch.ones(5)).tolist()
        [10.0, 10.0, 10.0]
    """

    A: Float[Tensor, "... row mid"]
    B: Float[Tensor, "... mid column"]

    def __attrs_post_init__(self) -> None:
        """Check that the factors fit, and give them the same leading axes."""
        for name, factor in (("A", self.A), ("B", self.B)):
            if factor.ndim < 2:  # noqa: PLR2004 -- a matrix
                raise OptionError(
                    name, f"it has shape {tuple(factor.shape)}: no matrix"
                )
        if (self.A.dtype, self.A.device) != (self.B.dtype, self.B.device):
            kinds = [f"{each.dtype} on {each.device}" for each in (self.A, self.B)]
            raise DtypeError("the right factor", kinds[1], kinds[0])
        if self.A.shape[-1] != self.B.shape[-2]:
            expected = (*self.B.shape[:-2], self.A.shape[-1], self.B.shape[-1])
            raise ShapeError("the right factor", tuple(self.B.shape), expected)
        batch = _common(self.A.shape[:-2], self.B.shape[:-2])
        for name, factor in (("A", self.A), ("B", self.B)):
            whole = factor.expand(*batch, *factor.shape[-2:])
            object.__setattr__(self, name, whole)  # a view; nothing is copied

    def __repr__(self) -> str:
        """Give the shape, the size in the middle and the dtype."""
        dtype = str(self.A.dtype).removeprefix("torch.")
        return f"FactoredMatrix({[*self.shape]} through {self.A.shape[-1]}, {dtype})"

    @property
    def shape(self) -> tuple[int, ...]:
        """Sizes of the axes of the product."""
        return (*self.A.shape[:-1], self.B.shape[-1])

    @property
    def ndim(self) -> int:
        """How many axes the product has."""
        return self.A.ndim

    @property
    def pair(self) -> tuple[Tensor, Tensor]:
        """Both factors."""
        return self.A, self.B

    @property
    def T(self) -> "FactoredMatrix":  # noqa: N802 -- torch's name for it
        """The transpose of each matrix; leading axes stay."""
        return FactoredMatrix(self.B.mT, self.A.mT)

    @property
    def AB(self) -> Float[Tensor, "*batch row column"]:  # noqa: N802 -- a product
        """The product, multiplied out."""
        return self.A @ self.B

    @property
    def BA(self) -> Float[Tensor, "*batch mid mid"]:  # noqa: N802 -- a product
        """The factors multiplied the other way round; of square matrices only.

        Raises:
            ShapeError: The matrices are not square.
        """
        self._check_square()
        return self.B @ self.A

    @overload
    def __matmul__(self, other: "FactoredMatrix") -> "FactoredMatrix": ...
    @overload
    def __matmul__(self, other: Tensor) -> "FactoredMatrix | Tensor": ...
    def __matmul__(self, other: "FactoredMatrix | Tensor") -> "FactoredMatrix | Tensor":
        """Multiply from the right; a vector gives a tensor."""
        if isinstance(other, Tensor):
            if other.ndim == 1:
                return (self.A @ (self.B @ other[:, None]))[..., 0]
            return FactoredMatrix(self.A, self.B @ other)
        middle = self.B @ other.A
        if self.A.shape[-1] <= other.A.shape[-1]:
            return FactoredMatrix(self.A, middle @ other.B)
        return FactoredMatrix(self.A @ middle, other.B)

    def __rmatmul__(self, other: Tensor) -> "FactoredMatrix | Tensor":
        """Multiply from the left; a vector gives a tensor."""
        if other.ndim == 1:
            return ((other @ self.A)[..., None, :] @ self.B)[..., 0, :]
        return FactoredMatrix(other @ self.A, self.B)

    def __mul__(self, factor: float | Float[Tensor, ""]) -> "FactoredMatrix":
        """Multiply by a number."""
        if isinstance(factor, Tensor) and factor.ndim:
            problem = f"it has shape {tuple(factor.shape)}; expected one number"
            raise OptionError("factor", problem)
        return FactoredMatrix(self.A * factor, self.B)

    __rmul__ = __mul__

    def __getitem__(self, index: _Index | tuple[_Index, ...]) -> "FactoredMatrix":
        """Select leading axes, then rows, then columns.

        It stays a matrix: a number in the place of rows or columns keeps one of them.

        Raises:
            OptionError: There are more axes in the index than here, or a row or column
                that is not there.
        """
        batch, rows, columns = self._split(index)
        left, right = self.A[batch], self.B[batch]
        rows = _kept(rows, self.shape[-2], "row")
        columns = _kept(columns, self.shape[-1], "column")
        return FactoredMatrix(left[..., rows, :], right[..., columns])

    def svd(self) -> Svd:
        """Decompose into singular vectors and values, through QR of the factors.

        Returns:
            `U`, `S` and `Vh` as of `torch.linalg.svd`, in float32 where the factors are
            in half precision. There are no more values than the smallest of row, mid
            and column; the others are 0.
        """
        left, core, right = _core(_wide(self.A), _wide(self.B))
        parts: tuple[Tensor, Tensor, Tensor] = _torch.linalg.svd(
            core, full_matrices=False
        )
        inner_left, values, inner_right = parts
        over = inner_left if left is None else left @ inner_left
        under = inner_right if right is None else inner_right @ right.mT
        return Svd(over, values, under)

    @property
    def U(self) -> Float[Tensor, "*batch row rank"]:  # noqa: N802 -- torch's name
        """Left singular vectors; `svd` gives all three at once."""
        return self.svd().U

    @property
    def S(self) -> Float[Tensor, "*batch rank"]:  # noqa: N802 -- torch's name
        """Singular values, largest first."""
        return self.svd().S

    @property
    def Vh(self) -> Float[Tensor, "*batch rank column"]:  # noqa: N802 -- torch's name
        """Right singular vectors, one in each row, as torch has it."""
        return self.svd().Vh

    @property
    def eigenvalues(self) -> Complex[Tensor, "*batch rank"]:
        """Eigenvalues of square matrices, those of `B @ A`; the others are 0.

        Raises:
            ShapeError: The matrices are not square.
        """
        self._check_square()
        rows, mid = self.A.shape[-2:]
        left, right = _wide(self.A), _wide(self.B)
        square = right @ left if mid < rows else left @ right
        values: Tensor = _torch.linalg.eigvals(square)
        return values

    def norm(self) -> Float[Tensor, "*batch"]:
        """Compute the Frobenius norm of each matrix."""
        _, core, _ = _core(_wide(self.A), _wide(self.B))
        norms: Tensor = _torch.linalg.matrix_norm(core)
        return norms

    def make_even(self) -> "FactoredMatrix":
        """Refactor, so that both factors have orthogonal columns of the same norms."""
        left, values, right = self.svd()
        root = values.sqrt()
        return FactoredMatrix(left * root[..., None, :], root[..., :, None] * right)

    def collapse_l(self) -> Float[Tensor, "*batch rank column"]:
        """Give `diag(S) @ Vh`: the product up to a rotation of its rows."""
        _, values, right = self.svd()
        return values[..., :, None] * right

    def collapse_r(self) -> Float[Tensor, "*batch row rank"]:
        """Give `U @ diag(S)`: the product up to a rotation of its columns."""
        left, values, _ = self.svd()
        return left * values[..., None, :]

    def unsqueeze(self, axis: int) -> "FactoredMatrix":
        """Put a leading axis of size one in.

        Args:
            axis: Where it stands afterwards, from 0 to the number of leading axes.

        Raises:
            OptionError: It would stand behind the rows.
        """
        if not 0 <= axis <= self.ndim - 2:
            last = self.ndim - 2
            raise OptionError("axis", f"{axis} is no leading axis", (f"0..{last}",))
        return FactoredMatrix(self.A.unsqueeze(axis), self.B.unsqueeze(axis))

    def get_corner(self, size: int = 3) -> Tensor:
        """Multiply the first entries of every axis out, to look at them.

        Args:
            size: How many entries of each axis.
        """
        leading = (slice(size),) * (self.ndim - 2)
        return self.A[leading][..., :size, :] @ self.B[leading][..., :size]

    def _check_square(self) -> None:
        rows, columns = self.shape[-2:]
        if rows != columns:
            expected = (*self.shape[:-1], rows)
            raise ShapeError("the matrix", self.shape, expected)

    def _split(
        self, index: _Index | tuple[_Index, ...]
    ) -> tuple[tuple[_Index, ...], _Index, _Index]:
        """Sort an index into leading axes, rows and columns."""
        given = index if isinstance(index, tuple) else (index,)
        _check_words(given)
        open_at = [at for at, one in enumerate(given) if one is Ellipsis]
        if len(open_at) > 1 or len(given) - len(open_at) > self.ndim:
            problem = f"{len(given)} entries for {self.ndim} axes"
            raise OptionError("index", problem)
        before = given[: open_at[0]] if open_at else given
        after = given[open_at[0] + 1 :] if open_at else ()
        filled = (slice(None),) * (self.ndim - len(before) - len(after))
        every = (*before, *filled, *after)
        return every[:-2], every[-2], every[-1]


def _check_words(given: tuple[object, ...]) -> None:
    for one in given:
        allowed = isinstance(one, (int, slice, Tensor, Sequence)) or one is Ellipsis
        if not allowed or isinstance(one, (bool, str)):
            problem = f"{one!r} selects nothing of a matrix"
            raise OptionError("index", problem, ("a number", "a slice", "a tensor"))


def _kept(index: _Index, size: int, word: str) -> _Index:
    """Turn the number of a row or column into a slice of one."""
    if not isinstance(index, int):
        return index
    if not -size <= index < size:
        raise OptionError("index", f"{word} {index} of {size}")
    return slice(index % size, index % size + 1)


def _common(left: torch.Size, right: torch.Size) -> torch.Size:
    """Broadcast leading axes."""
    try:
        common: torch.Size = _torch.broadcast_shapes(left, right)
    except RuntimeError as error:
        raise ShapeError(
            "the leading axes of the right factor", tuple(right), tuple(left)
        ) from error
    return common


def _wide(factor: Tensor) -> Tensor:
    """Give a precision that decompositions can be computed in."""
    return factor.float() if factor.dtype.itemsize < _BYTES_OF_FLOAT else factor


def _core(left: Tensor, right: Tensor) -> tuple[Tensor | None, Tensor, Tensor | None]:
    """Take orthogonal columns out of both factors.

    Returns:
        `over`, `core` and `under`: `over @ core @ under.mT` is the product of both.
        What is None is the identity: that factor was small already.
    """
    over, upper = _reduced(left)
    under, lower = _reduced(right.mT)
    return over, upper @ lower.mT, under


def _reduced(factor: Tensor) -> tuple[Tensor | None, Tensor]:
    rows, columns = factor.shape[-2:]
    if rows <= columns:
        return None, factor
    parts: tuple[Tensor, Tensor] = _torch.linalg.qr(factor)
    return parts
