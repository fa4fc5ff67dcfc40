"""The Open Inference Protocol, whatever carries it: tensors in, tensors out, over a `Service`.

The protocol of KServe, Triton and MLServer, with Triton's extensions for binary tensors, classification,
statistics, model configuration and schedule policy. Neither HTTP nor gRPC is known here.

tensor.py       tensors: their bytes, their JSON values
signature.py    what the model takes and gives; a request's tensors -> images
request.py      a request
infer.py        request -> answer
answer.py       predictions -> the output tensors asked for
parameters.py   timeout, priority, classification, top_k
json_form.py    request and answer as JSON, with binary tensors behind it
model.py        metadata and configuration of server and model
statistics.py   counts and times since the start
"""
