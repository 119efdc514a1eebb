"""New values for a model's weights, while they are being worked out."""

import torch
from torch import Tensor

from funlens.adapters._machinery import Machinery
from funlens.adapters._stream import Matrix, matrix_at, refusal
from funlens.adapters._weight_edits import exchanged, weights_of
from funlens.data import ModelSpec, Site


class Draft:
    """A spec's weights, read and written in one orientation, and the spec made of them.

    What is read is as wide as float32 at least; what is written takes the dtype that
    the model has. Tied weights move together, but for an unembedding, which is parted
    from its embedding.

    Raises:
        UnsupportedConfigError: Some weights are not in memory, or it has no logits.
    """

    def __init__(self, spec: ModelSpec) -> None:
        self._spec = spec
        self._machinery: Machinery = spec.engine
        self._held = weights_of(spec.module)
        self._unembed = f"{self._machinery.unembed}.weight"
        absent = [name for name, held in self._held.items() if held.is_meta]
        if absent:
            problem = f"{absent[0]} is not in memory: it is offloaded, or never loaded"
            raise refusal(spec.model_type, problem)
        if Site(part="logits") not in self._machinery.taps:
            problem = "it gives no logits, by which one could tell that nothing moves"
            raise refusal(spec.model_type, problem)
        self._new: dict[str, Tensor] = {}

    def spec(self) -> ModelSpec:
        """Give the spec with all that was written; the old one if nothing was."""
        return exchanged(self._spec, self._new) if self._new else self._spec

    def has(self, name: str) -> bool:
        """Tell whether there is a weight of that name."""
        return name in self._held or name in self._new

    def read(self, name: str) -> Tensor:
        """Give a weight as it is now."""
        raw = self._new.get(name, self._held.get(name))
        if raw is None:  # names come from the module's own tree
            raise AssertionError(name)
        return raw.detach().to(torch.promote_types(raw.dtype, torch.float32))

    def write(self, name: str, value: Tensor) -> None:
        """Put a value there, and wherever the weight is tied to."""
        old = self._held[name]
        new = value.to(old.dtype).contiguous()
        for other, held in self._held.items():
            if held is old and (other == self._unembed) == (name == self._unembed):
                self._new[other] = new

    def matrix(self, matrix: Matrix) -> Tensor:
        """Give a matrix as `[..., input, output]`."""
        raw = self.read(matrix.weight)
        return raw if matrix.input_first else raw.mT

    def set_matrix(self, matrix: Matrix, value: Tensor) -> None:
        """Put a matrix `[..., input, output]` back."""
        self.write(matrix.weight, value if matrix.input_first else value.mT)

    def bias(self, matrix: Matrix) -> Tensor | None:
        """Give a matrix's bias `[..., output]`, if it has one."""
        return self.read(matrix.bias) if self.has(matrix.bias) else None

    def set_bias(self, matrix: Matrix, value: Tensor) -> None:
        """Put a bias there, giving the matrix one if it must.

        Raises:
            UnsupportedConfigError: It has none, and none can be given to it.
        """
        if matrix.bias in self._held:
            self.write(matrix.bias, value)
        elif matrix.takes_bias:
            self._new[matrix.bias] = value.to(self._held[matrix.weight].dtype)
        else:
            raise refusal(
                self._spec.model_type,
                f"{matrix.weight} would need a bias, and its module takes none",
            )

    def projection(self, site: Site) -> Matrix:
        """Describe the projection that makes a site of heads, or that it enters."""
        return matrix_at(self._machinery.module, self._machinery.taps[site].path)

    def heads(self, site: Site) -> Tensor:
        """Give what makes a site, `[head, d_model, d_head]`.

        Of a site that enters its projection it is `[head, d_head, d_model]`.
        """
        tap, matrix = self._machinery.taps[site], self.matrix(self.projection(site))
        if tap.side == "in":
            return tap.view.read(matrix.mT[None], 1)[0].permute(1, 2, 0)
        return tap.view.read(matrix[None], 1)[0].transpose(0, 1)

    def set_heads(self, site: Site, value: Tensor) -> None:
        """Put back what `heads` gives, between what else is in the projection."""
        tap, at = self._machinery.taps[site], self.projection(site)
        matrix = self.matrix(at)
        if tap.side == "in":
            raw, heads = matrix.mT[None], value.permute(2, 0, 1)[None]
            self.set_matrix(at, tap.view.write(raw, heads)[0].mT)
        else:
            raw, heads = matrix[None], value.transpose(0, 1)[None]
            self.set_matrix(at, tap.view.write(raw, heads)[0])

    def heads_bias(self, site: Site) -> Tensor | None:
        """Give the bias of what makes a site, `[head, d_head]`, if it has one."""
        bias = self.bias(self.projection(site))
        if bias is None:
            return None
        return self._machinery.taps[site].view.read(bias[None, None], 1)[0, 0]

    def set_heads_bias(self, site: Site, value: Tensor) -> None:
        """Put back what `heads_bias` gives."""
        at = self.projection(site)
        bias = self.bias(at)
        if bias is None:  # `heads_bias` gave one
            raise AssertionError(site)
        view = self._machinery.taps[site].view
        self.set_bias(at, view.write(bias[None, None], value[None, None])[0, 0])
