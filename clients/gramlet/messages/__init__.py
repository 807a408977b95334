"""Pure codecs between `gramlet.types` and protobuf messages, one module per proto package, both directions.

`encode_x` makes a message, `decode_x` reads one. Decoding checks what a message can get wrong by itself (an unknown
enum value, data that does not fill its shape) and raises `InvalidInput` with the path of the field; what needs a
network or a store to judge is the domain's business.
"""
