"""Equal groups: whole batches; slots that copy prompts; slots whose block shares a prefix row (emulated: one filling, own ring of the responses)."""
import dataclasses, time, jax, jax.numpy as jnp, numpy as np
from functools import partial
from experiments.benchmarks.speed import SIZES
from experiments.benchmarks.rollouts import requests, rollout
from rlvr_jax import policy
from rlvr_jax.policy import Cache
from rlvr_jax.rollout import slots as device
from rlvr_jax.rollout.batches import pad_prompts, prompt_positions
from rlvr_jax.rollout.requests import draws_of
from rlvr_jax.rollout.sampler import SamplingConfig, prepare
config=SIZES['tiny']; P,G,L,N=32,8,128,16
import sys; P=int(sys.argv[1]); N=int(sys.argv[2])
params=jax.jit(partial(policy.init,config))(jax.random.key(0))
prompts=np.random.default_rng(0).integers(0,512,(N,P)).astype(np.int32)
work=requests(prompts,G,[L]*(N*G))
calls={'batches':rollout(config,SamplingConfig(P,L,G,batch_size=N),params,[work]),
       'slots':rollout(config,SamplingConfig(P,L,G,slots=N*G,chunk=16,prefill_chunk=P),params,[work])}
# prefix: slots.decode with Cache(own, prefix)
sam=SamplingConfig(P,L,G,slots=N*G,chunk=16)
orig=policy.forward
def decode(params, slots, prefix):
    device.policy.forward=lambda c,p,a,b,d,cache: orig(c,p,a,b,d,Cache(cache.own,prefix))
    try: return device.decode(config,sam,params,slots)
    finally: device.policy.forward=orig
decode=jax.jit(decode,donate_argnums=1)
@jax.jit
def prefill(params,tokens,mask):
    pos,seg=prompt_positions(mask)
    return orig(config,params,tokens,pos,seg,Cache(policy.empty_key_values(config,params,len(tokens),tokens.shape[1])))[1].own
empty=jax.jit(partial(device.empty_slots,config),static_argnums=1)
def prefix():
    ready=prepare(config,params)
    tokens,mask=pad_prompts([p[:-1] for p in prompts],P)
    pre=prefill(ready,tokens,mask)
    tail=device.Tail(np.repeat(prompts[:,-1],G),draws_of(work,1))
    s=empty(ready,-(-(L+16)//8)*8,tail)
    s=s.replace(active=jnp.ones(N*G,bool),position=jnp.full(N*G,P-1,jnp.int32),tail=jax.tree.map(jnp.asarray,tail))
    out=[]
    while bool(s.active.any()):
        s,e=decode(ready,s,pre); out.append(jax.device_get(e))
    return out
calls['prefix slots']=prefix
for c in calls.values(): c()
times={n:[] for n in calls}
for r in range(5):
    for n,c in calls.items():
        a,b=time.process_time(),time.perf_counter(); c(); times[n].append((time.process_time()-a,time.perf_counter()-b))
for n,t in times.items():
    print(P,N,n,'cpu median',round(float(np.median([x[0] for x in t])),3),'wall min',round(min(x[1] for x in t),3),flush=True)
