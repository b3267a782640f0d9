"""Wire-compatible subsets of the servers' gRPC messages; importing them imports neither torch nor tensorflow.

The ``*_pb2.py`` files are generated. After a change of a ``.proto`` file, regenerate them from the repository's root:

    python -m grpc_tools.protoc -I . --python_out=. --pyi_out=. serving/wire/protobuf/*.proto
"""
