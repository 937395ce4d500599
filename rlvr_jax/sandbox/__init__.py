"""The sandbox: runs programs that a model wrote, where they can reach nothing.

`engine.open_sandbox` finds what isolates on this machine, and `host.Sandbox` runs jobs in it. What a job is given and
what it may answer is in `job` (the program), `trial` (the tests) and `codec` (the data between them); how it is
confined in `zygote`, with `kernel` and `seccomp`.

Worker processes and the zygote import this package: standard library only.
"""
