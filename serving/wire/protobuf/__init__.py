"""Wire-compatible subsets of both servers' gRPC messages; importing them imports neither torch nor tensorflow.

The ``*_pb2.py`` files are generated. After a change of a ``.proto`` file, regenerate them from the repository's root:

    python -m grpc_tools.protoc -I . --python_out=. --pyi_out=. \\
        serving/wire/protobuf/tensorflow_serving.proto serving/wire/protobuf/torchserve.proto
"""
