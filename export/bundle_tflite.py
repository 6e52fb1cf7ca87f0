"""Types of the tensors of a .tflite file, from its flatbuffer. Needs only the standard library."""

IDENTIFIER = b"TFL3"
SUBGRAPHS, TENSORS, TYPE = 2, 0, 1  # fields of Model, SubGraph and Tensor in the schema
PRECISIONS = {0: "fp32", 1: "fp16", 3: "int8", 9: "int8"}  # by TensorType


def tflite_kinds(data):
    """Precisions of the tensors: a set of fp32, fp16 and int8.

    Raises ValueError or IndexError if the data are not a .tflite file, or damaged.
    """
    if data[4:8] != IDENTIFIER:
        raise ValueError("not a .tflite file")
    kinds = set()
    for graph in tables(data, number(data, 0, 4), SUBGRAPHS):
        for tensor in tables(data, graph, TENSORS):
            at = field(data, tensor, TYPE)
            kinds.add(PRECISIONS.get(number(data, at, 1) if at else 0))
    kinds.discard(None)
    if not kinds:
        raise ValueError("no tensors")
    return kinds


def tables(data, table, index):
    """Positions of the tables in a vector of tables; none if the field is missing."""
    at = field(data, table, index)
    if not at:
        return
    vector = at + number(data, at, 4)
    for i in range(number(data, vector, 4)):
        item = vector + 4 + 4 * i
        yield item + number(data, item, 4)


def field(data, table, index):
    """Position of the value of a field in a table; 0: missing."""
    back = int.from_bytes(data[table : table + 4], "little", signed=True)
    description = table - back
    if 4 + 2 * index >= number(data, description, 2):
        return 0
    offset = number(data, description + 4 + 2 * index, 2)
    return table + offset if offset else 0


def number(data, at, size):
    """An unsigned number of `size` bytes."""
    if not 0 <= at <= len(data) - size:
        raise IndexError("cut off")
    return int.from_bytes(data[at : at + size], "little")
