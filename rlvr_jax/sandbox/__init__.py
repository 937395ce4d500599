"""The sandbox: runs model-written programs in isolation.

`engine.open_sandbox` selects the isolation available on this machine, and `host.Sandbox` runs jobs in it. The protocol
of a job is in `job` (the program), `trial` (the tests) and `codec` (the data between them); its confinement in
`zygote`, with `kernel` and `seccomp`.

Worker processes and the zygote import this package: standard library only.
"""
