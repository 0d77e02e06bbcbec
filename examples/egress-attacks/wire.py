"""As much of protocol buffers as an attacker needs: fields by number, in and out.

In:    fields as (number, value): bytes, text, a number, or a list of fields.
Out:   a message's bytes, and the fields of one.
Never: knows a schema: callers name numbers, each beside its source.
"""


def varint(number):
    out = bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)
    return bytes(out)


def message(*fields):
    """The bytes of a message."""
    out = b""
    for number, value in fields:
        if isinstance(value, int):
            out += varint(number << 3) + varint(value)
            continue
        if isinstance(value, str):
            value = value.encode()
        out += varint(number << 3 | 2) + varint(len(value)) + value
    return out


def fields(data):
    """The fields of a message: (number, bytes or int), in order."""
    found, at = [], 0

    def number():
        nonlocal at
        value = shift = 0
        while True:
            byte = data[at]
            at += 1
            value |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                return value

    while at < len(data):
        key = number()
        kind = key & 7
        if kind == 0:
            found.append((key >> 3, number()))
            continue
        size = {1: 8, 5: 4}.get(kind)
        if size is None:
            size = number()
        found.append((key >> 3, data[at:at + size]))
        at += size
    return found


def all_of(data, wanted):
    """The values of one field."""
    return [value for number, value in fields(data) if number == wanted]


def one_of(data, wanted, default=b""):
    """The value of a field that is there once."""
    return next(iter(all_of(data, wanted)), default)


def struct(values):
    """A `google.protobuf.Struct` of text: fields = 1 {key = 1, value = 2 {string_value = 3}}."""
    return message(*((1, message((1, key), (2, message((3, value))))) for key, value in values.items()))
