"""Small pickles of values that cannot be gone through, in every place where a pickle can have one."""


def nested(levels):
    """A tuple in a tuple in a tuple ..."""
    return b")" + b"\x85" * levels


def shared(levels=200):
    """A pair of twice the same pair of twice the same ...: small, but endless to go through."""
    return b")" + b"".join(b"q" + bytes([i]) + b"h" + bytes([i]) + b"\x86" for i in range(levels))


DTYPE_F8 = b"cnumpy\ndtype\nX\x02\x00\x00\x00f8K\x00K\x01\x87R"
FROMBUFFER = b"cnumpy.core.numeric\n_frombuffer\n"
RECONSTRUCT = b"cnumpy.core.multiarray\n_reconstruct\n"


def uses(value):
    """Everything that a pickle can do with a value, each as a whole pickle."""
    eight_bytes = b"C\x08" + bytes(8)
    made = RECONSTRUCT + b"cnumpy\nndarray\nK\x00\x85C\x01b\x87R"
    return {
        "key": b"}" + value + b"Ns.",
        "key of several": b"}(" + value + b"Nu.",
        "key beside text": b"}(X\x01\x00\x00\x00aN" + value + b"Nu.",
        "entry": b"}X\x01\x00\x00\x00X" + value + b"s.",
        "item": b"}X\x01\x00\x00\x00X]" + value + b"as.",
        "top": value + b".",
        "kind of type": b"cnumpy\ndtype\n" + value + b"\x85R.",
        "arguments": b"cnumpy\ndtype\n" + value + b"R.",
        "callable": value + b")R.",
        "state of a type": DTYPE_F8 + value + b"b.",
        "order of a type": DTYPE_F8 + b"(K\x03" + value + b"NNNK\x01K\x01K\x00tb.",
        "fields of a type": DTYPE_F8 + b"(K\x03X\x01\x00\x00\x00<" + value + b"NNK\x01K\x01K\x00tb.",
        "shape": FROMBUFFER + b"(" + eight_bytes + DTYPE_F8 + value + b"X\x01\x00\x00\x00CtR.",
        "size": FROMBUFFER + b"(" + eight_bytes + DTYPE_F8 + value + b"\x85X\x01\x00\x00\x00CtR.",
        "order": b"](" + FROMBUFFER + b"(" + eight_bytes + DTYPE_F8 + b"K\x01\x85" + value + b"tRe.",
        "content": FROMBUFFER + b"(" + value + DTYPE_F8 + b"K\x01\x85X\x01\x00\x00\x00CtR.",
        "shape to begin with": RECONSTRUCT + b"cnumpy\nndarray\n" + value + b"C\x01b\x87R.",
        "code to begin with": RECONSTRUCT + b"cnumpy\nndarray\nK\x00\x85" + value + b"\x87R.",
        "state of an array": made + value + b"b.",
        "shape in a state": made + b"(K\x01" + value + DTYPE_F8 + b"\x89" + eight_bytes + b"tb.",
        "text": b"c_codecs\nencode\n" + value + b"X\x06\x00\x00\x00latin1\x86R.",
        "name of an encoding": b"c_codecs\nencode\nX\x01\x00\x00\x00a" + value + b"\x86R.",
    }
