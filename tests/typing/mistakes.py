"""What a type checker must find: an ignore that is not needed is an error."""

import torch

import funlens as fl

spec = fl.load("builtin:tiny")
tokens = fl.to_tokens(spec, "text")

fl.run(spec, tokens, stop_at_layr=1)  # pyright: ignore[reportCallIssue] (no such option)
fl.run(spec, tokens, fl.Zero(fl.z(0)))  # pyright: ignore[reportArgumentType] (one, not a list)
fl.run(spec, tokens, None)  # pyright: ignore[reportArgumentType] (not a list)
fl.run_with_cache(spec, tokens, capture=fl.z)  # pyright: ignore[reportArgumentType] (one, not a list)
fl.run_with_cache(spec, tokens, (), [fl.z])  # pyright: ignore[reportCallIssue] (options go by name)
fl.Add(fl.z(0), 1.0)  # pyright: ignore[reportArgumentType] (a number, not a tensor)
fl.Add(fl.z(0))  # pyright: ignore[reportCallIssue] (nothing to add)
fl.Noise(fl.z(0), std=0.1)  # pyright: ignore[reportCallIssue] (no seed)
fl.Apply(fl.z(0), 3)  # pyright: ignore[reportArgumentType] (no function)
fl.z(0, heads=1)  # pyright: ignore[reportCallIssue] (no such axis)
fl.z("0")  # pyright: ignore[reportArgumentType] (a layer is a number)
fl.generate(spec, tokens, 20)  # pyright: ignore[reportArgumentType, reportCallIssue] (not a list)

cache = fl.run_with_cache(spec, tokens).cache
cache[fl.z(0)] = torch.ones(1)  # pyright: ignore[reportIndexIssue] (a cache does not change)
spec.n_layers = 3  # pyright: ignore[reportAttributeAccessIssue] (nor does a spec)
fl.z(0).layer = 1  # pyright: ignore[reportAttributeAccessIssue] (nor a site)
