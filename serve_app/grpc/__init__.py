"""The gRPC surface: `inference.GRPCInferenceService` of the Open Inference Protocol over a `Service`, without Ray.

inference.proto   the messages, from which `make proto` writes inference_pb2.py and .pyi
wire.py           a request's bytes -> its message and its raw tensors, with everything bounded before it is parsed
messages.py       messages <-> requests and answers
servicer.py       every rpc; the deployment inherits it
server.py         the rpcs registered with a server: what a config's `grpc_servicer_functions` names
"""

SERVICE = "inference.GRPCInferenceService"
ADD_SERVICERS = "serve_app.grpc.server.add_servicers"
"""For `grpc_servicer_functions` of a config."""
