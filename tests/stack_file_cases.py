"""Stack files and what Pulumi's CLI makes of them. The unit tests read them, and the engine tier gives them to the CLI."""

# A value as written; the text that the program gets where it is a key's value; the JSON where it is in a map or a list.
VALUES: tuple[tuple[str, str, str], ...] = (
    # Words
    ("true", "true", "true"),
    ("True", "true", "true"),
    ("TRUE", "true", "true"),
    ("tRUE", "tRUE", '"tRUE"'),
    ("false", "false", "false"),
    ("False", "false", "false"),
    ("FALSE", "false", "false"),
    ("yes", "yes", '"yes"'),
    ("Yes", "Yes", '"Yes"'),
    ("YES", "YES", '"YES"'),
    ("no", "no", '"no"'),
    ("No", "No", '"No"'),
    ("NO", "NO", '"NO"'),
    ("on", "on", '"on"'),
    ("On", "On", '"On"'),
    ("ON", "ON", '"ON"'),
    ("off", "off", '"off"'),
    ("Off", "Off", '"Off"'),
    ("y", "y", '"y"'),
    ("n", "n", '"n"'),
    ("Y", "Y", '"Y"'),
    ("N", "N", '"N"'),
    ("null", "", "null"),
    ("Null", "", "null"),
    ("NULL", "", "null"),
    ("nUll", "nUll", '"nUll"'),
    ("~", "", "null"),
    ("=", "=", '"="'),
    ("inf", "inf", '"inf"'),
    ("nan", "nan", '"nan"'),
    ("Infinity", "Infinity", '"Infinity"'),
    # Whole numbers
    ("0", "0", "0"),
    ("7", "7", "7"),
    ("+7", "7", "7"),
    ("-7", "-7", "-7"),
    ("-0", "0", "0"),
    ("007", "7", "7"),
    ("017", "15", "15"),
    ("-017", "-15", "-15"),
    ("08", "8", "8"),
    ("0o17", "15", "15"),
    ("-0o17", "-15", "-15"),
    ("0O17", "15", "15"),
    ("0o8", "0o8", '"0o8"'),
    ("0x1F", "31", "31"),
    ("0X1f", "31", "31"),
    ("-0x1F", "-31", "-31"),
    ("0xg", "0xg", '"0xg"'),
    ("0b11", "3", "3"),
    ("0B11", "3", "3"),
    ("-0b11", "-3", "-3"),
    ("0b2", "0b2", '"0b2"'),
    ("1_000", "1000", "1000"),
    ("1__0", "10", "10"),
    ("1_", "1", "1"),
    ("_1", "_1", '"_1"'),
    ("0x_1F", "31", "31"),
    ("0777_7", "4095", "4095"),
    ("1,000", "1,000", '"1,000"'),
    ("9223372036854775807", "9223372036854775807", "9223372036854775807"),
    ("9223372036854775808", "9223372036854775808", "9223372036854776000"),
    ("18446744073709551615", "18446744073709551615", "18446744073709552000"),
    ("18446744073709551616", "18446744073709552000", "18446744073709552000"),
    ("-9223372036854775808", "-9223372036854775808", "-9223372036854775808"),
    ("-9223372036854775809", "-9223372036854776000", "-9223372036854776000"),
    ("0xFFFFFFFFFFFFFFFF", "18446744073709551615", "18446744073709552000"),
    ("99999999999999999999", "100000000000000000000", "100000000000000000000"),
    ("1 000", "1 000", '"1 000"'),
    # Numbers
    ("1.0", "1", "1"),
    ("1.", "1", "1"),
    (".5", "0.5", "0.5"),
    ("-.5", "-0.5", "-0.5"),
    ("+.5", "0.5", "0.5"),
    ("0.9", "0.9", "0.9"),
    ("1.10", "1.1", "1.1"),
    ("1.5.2", "1.5.2", '"1.5.2"'),
    ("-0.0", "0", "0"),
    ("1e3", "1000", "1000"),
    ("1E3", "1000", "1000"),
    ("1e+3", "1000", "1000"),
    ("1e-3", "0.001", "0.001"),
    ("1e12", "1000000000000", "1000000000000"),
    ("1e20", "100000000000000000000", "100000000000000000000"),
    ("1e21", "1e+21", "1e+21"),
    ("1e-7", "1e-7", "1e-7"),
    ("1.5e300", "1.5e+300", "1.5e+300"),
    ("1e400", "1e400", '"1e400"'),
    (".1e400", ".1e400", '".1e400"'),
    ("1e-400", "0", "0"),
    (".5_0", "0.5", "0.5"),
    ("._5", "._5", '"._5"'),
    ("1_0.5", "10.5", "10.5"),
    ("1e1_0", "10000000000", "10000000000"),
    ("1e", "1e", '"1e"'),
    ("e3", "e3", '"e3"'),
    (".", ".", '"."'),
    ("..", "..", '".."'),
    ("-.", "-.", '"-."'),
    ("0x1p4", "0x1p4", '"0x1p4"'),
    ("09.5", "9.5", "9.5"),
    ("123456789.5", "123456789.5", "123456789.5"),
    ("1000000.0", "1000000", "1000000"),
    ("0.000001", "0.000001", "0.000001"),
    ("0.0000001", "1e-7", "1e-7"),
    ("5e-324", "5e-324", "5e-324"),
    ("1:30", "1:30", '"1:30"'),
    ("190:20:30.15", "190:20:30.15", '"190:20:30.15"'),
    # Times
    ("2026-01-03T08:00:00", "2026-01-03T08:00:00", '"2026-01-03T08:00:00"'),
    ("2026-01-03T08:00:00+0200", "2026-01-03T08:00:00+0200", '"2026-01-03T08:00:00+0200"'),
    ("2026-01-03 08:00:00Z", "2026-01-03 08:00:00Z", '"2026-01-03 08:00:00Z"'),
    ("2026-01-03 08:00:00 +2", "2026-01-03 08:00:00 +2", '"2026-01-03 08:00:00 +2"'),
    ("12:30:45", "12:30:45", '"12:30:45"'),
    ("2026-01", "2026-01", '"2026-01"'),
    ("26-01-03", "26-01-03", '"26-01-03"'),
    # Quotes and tags
    ("'1'", "1", '"1"'),
    ('"1"', "1", '"1"'),
    ("'true'", "true", '"true"'),
    ("''", "", '""'),
    ('""', "", '""'),
    ("'~'", "~", '"~"'),
    ("'2026-01-03'", "2026-01-03", '"2026-01-03"'),
    ("!!str 1", "1", '"1"'),
    ("!!str true", "true", '"true"'),
    ("!!str", "", '""'),
    ("!!int 3", "3", "3"),
    ('!!int "3"', "3", "3"),
    ("!!int 0x1F", "31", "31"),
    ("!!float 3", "3", "3"),
    ("!!float 1e3", "1000", "1000"),
    ('!!float "2.5"', "2.5", "2.5"),
    ("!!bool true", "true", "true"),
    ('!!bool "False"', "false", "false"),
    ("!!null ''", "", "null"),
    ("!!null ~", "", "null"),
    ("!!binary aGVsbG8=", "hello", '"hello"'),
    ("! 3", "3", "3"),
    ("! '3'", "3", '"3"'),
    ("!<tag:yaml.org,2002:str> 3", "3", '"3"'),
    # Texts
    ("a b", "a b", '"a b"'),
    ("a#b", "a#b", '"a#b"'),
    ("a:b", "a:b", '"a:b"'),
    ("http://x/y", "http://x/y", '"http://x/y"'),
    ("v1.2.3", "v1.2.3", '"v1.2.3"'),
    ("-a", "-a", '"-a"'),
    ("<a&b>", "<a&b>", '"\\u003ca\\u0026b\\u003e"'),
    ("é", "é", '"é"'),
    ("😀", "😀", '"😀"'),
    ('"\\u00e9\\U0001F600"', "é😀", '"é😀"'),
    ('"a\\tb\\nc\\0"', "a\tb\nc\x00", '"a\\tb\\nc\\u0000"'),
    ('"\\u2028"', "\u2028", '"\\u2028"'),
    ('"\\"\\\\"', '"\\', '"\\"\\\\"'),
    ("'it''s'", "it's", '"it\'s"'),
    ("<<x", "<<x", '"\\u003c\\u003cx"'),
    ("a<<", "a<<", '"a\\u003c\\u003c"'),
    # Maps and lists
    ("{}", "{}", "{}"),
    ("[]", "[]", "[]"),
    ("{b: 1, a: 2, B: 3, é: 4}", '{"B":3,"a":2,"b":1,"é":4}', '{"B":3,"a":2,"b":1,"é":4}'),
    ("[1, [2, {x: ~}], '3']", '[1,[2,{"x":null}],"3"]', '[1,[2,{"x":null}],"3"]'),
    ("{a: {b: {c: on}}}", '{"a":{"b":{"c":"on"}}}', '{"a":{"b":{"c":"on"}}}'),
    ("{5: a, -1: b, true: c}", '{"-1":"b","5":"a","true":"c"}', '{"-1":"b","5":"a","true":"c"}'),
    ("{on: 1, yes: 2, 'no': 3}", '{"no":3,"on":1,"yes":2}', '{"no":3,"on":1,"yes":2}'),
    ("{a: }", '{"a":null}', '{"a":null}'),
    ("[~, null]", "[null,null]", "[null,null]"),
    ("{<<: {a: 1, b: 2}, b: 3}", '{"a":1,"b":3}', '{"a":1,"b":3}'),
    ("{<<: [{a: 1}, {a: 2, b: 2}], c: 3}", '{"a":1,"b":2,"c":3}', '{"a":1,"b":2,"c":3}'),
    ("{<<: {<<: {a: 1}, b: 2}}", '{"a":1,"b":2}', '{"a":1,"b":2}'),
    ("{'<<': {a: 1}}", '{"a":1}', '{"a":1}'),
    ('{"a": [1.50, true]}', '{"a":[1.5,true]}', '{"a":[1.5,true]}'),
    ("!!set {a, b}", '{"a":null,"b":null}', '{"a":null,"b":null}'),
    ("!!omap [a: 1]", '[{"a":1}]', '[{"a":1}]'),
)

# Files that the CLI reads, with what the program gets. The project is rayline.
READ: dict[str, tuple[bytes, dict[str, str]]] = {
    "nothing": (b"", {}),
    "comments only": (b"# one\n\n# two\n", {}),
    "null": (b"~\n", {}),
    "an empty map": (b"{}\n", {}),
    "config without a value": (b"config:\n", {}),
    "marks of begin and end": (b"---\nconfig: {a: 1}\n...\n", {"rayline:a": "1"}),
    "UTF-8 with a byte order mark": (b"\xef\xbb\xbfconfig: {a: \xc3\xa9}\n", {"rayline:a": "é"}),
    "UTF-16 from PowerShell": (b"\xff\xfe" + "config:\r\n  a: é😀\r\n".encode("utf-16-le"), {"rayline:a": "é😀"}),
    "UTF-16, big end first": (b"\xfe\xff" + "config: {a: é😀}\n".encode("utf-16-be"), {"rayline:a": "é😀"}),
    "line ends of Windows": (b"config:\r\n  a: |\r\n    x\r\n    y\r\n", {"rayline:a": "x\ny\n"}),
    "JSON": (b'{"config": {"a": {"b": [1, 1.50, null, true, "x"]}}}', {"rayline:a": '{"b":[1,1.5,null,true,"x"]}'}),
    "prefixes": (
        b"config: {a: 1, 'rayline:b': 2, 'rayline:config:c': 3, 'gcp:project': p, 'kubernetes:namespace': n}",
        {"rayline:a": "1", "rayline:b": "2", "rayline:c": "3", "gcp:project": "p", "kubernetes:namespace": "n"},
    ),
    "other keys of the CLI": (b"environment:\nconfig: {a: 1}\n", {"rayline:a": "1"}),
    "anchors": (
        b"config: {a: &a [1, {b: 2}], b: *a, c: {d: *a}}",
        {"rayline:a": '[1,{"b":2}]', "rayline:b": '[1,{"b":2}]', "rayline:c": '{"d":[1,{"b":2}]}'},
    ),
    "an anchor set twice": (
        b"config: {a: &a 1, b: *a, c: &a 2, d: *a}",
        {"rayline:a": "1", "rayline:b": "1", "rayline:c": "2", "rayline:d": "2"},
    ),
    "merge keys": (
        b"""
x-common: &common {model: m, replicas: 2, env: {A: "1"}}
x-small: &small {replicas: 1, engine: {max_num_seqs: 8}}
config:
  services:
    one: {<<: *common}
    two: {<<: *common, replicas: 3, env: {B: "2"}}
    three:
      <<: [*small, *common]
      accelerator: l4
""",
        {
            "rayline:services": (
                '{"one":{"env":{"A":"1"},"model":"m","replicas":2},'
                '"three":{"accelerator":"l4","engine":{"max_num_seqs":8},"env":{"A":"1"},"model":"m","replicas":1},'
                '"two":{"env":{"B":"2"},"model":"m","replicas":3}}'
            )
        },
    ),
    "a merge into config": (
        b"x-all: &all {a: 1, 'rayline:b': 2}\nconfig: {<<: *all, a: 3}",
        {"rayline:a": "3", "rayline:b": "2"},
    ),
    "anchors under a key of any name": (b"common: &c {x: 1}\nconfig: {a: *c}", {"rayline:a": '{"x":1}'}),
    "texts of several lines": (
        b"""
config:
  a: |
    one
      two

    three
  b: >-
    one
    two

    three
  c: "one
    two\\
    three"
  d: 'one

    two'
  e: one
    two
  f: |+
    one

""",
        {
            "rayline:a": "one\n  two\n\nthree\n",
            "rayline:b": "one two\nthree",
            "rayline:c": "one twothree",
            "rayline:d": "one\ntwo",
            "rayline:e": "one two",
            "rayline:f": "one\n\n",
        },
    ),
}

# Files that the CLI refuses, with a part of this project's message.
REFUSED: dict[str, tuple[bytes, str]] = {
    "a list": (b"[]", "a stack file is a map. Fix: write one"),
    "a text": (b"config", "a stack file is a map. Fix: write one"),
    "a number": (b"5", "a stack file is a map. Fix: write one"),
    "config is a list": (b"config: [{a: 1}]", "config is a map"),
    "config is a text": (b"config: a", "config is a map"),
    "an open bracket": (b"config:\n  a: [1, 2\n  b: 3\n", "line 3, column 4"),
    "a tab": (b"config:\n\ta: 1\n", "line 2, column 1: found character that cannot start any token. Fix: indent with spaces"),
    "a no-break space after a colon": (
        b"config:\n  a:\xc2\xa01\n  b: 2\n",
        "Fix: line 2 has U+00A0 (no-break space), write a space in its place",
    ),
    "a no-break space in the last line": (
        b"config:\n  a: \xc2\xa01\n  b:\xc2\xa02\n",
        "Fix: line 3 has U+00A0 (no-break space), write a space in its place",
    ),
    "a tab further down": (b"config:\n  a: 1\n\tb: 2\n", "Fix: indent with spaces"),
    "not a number": (b"config: {a: .nan}", "line 1: .nan is no number that Pulumi takes"),
    "infinity in a list": (b"config:\n  a:\n    - -.inf\n", "line 3: -.inf is no number that Pulumi takes"),
    "a tag that does not fit": (b"config: {a: !!int 3.0}", "line 1: '3.0' is no !!int"),
    "a word that is no switch": (b"config: {a: !!bool yes}", "line 1: 'yes' is no !!bool"),
    "no base64": (b"config: {a: !!binary '?'}", "line 1: '?' is not the base64 form of a text"),
    "a key twice": (b"config:\n  a: {b: 1}\n  a: {b: 2}\n", "line 3: the key 'a' is there twice, first in line 2"),
    "a key twice in a map": (b"config:\n  a:\n    b: 1\n    'b': 2\n", "line 4: the key 'b' is there twice, first in line 3"),
    "two merges": (b"config: {a: {<<: {b: 1}, <<: {c: 1}}}", "the key '<<' is there twice"),
    "a merge of a number": (b"config: {a: {<<: 5}}", "line 1: `<<` takes a map or a list of maps"),
    "a merge of a list in an alias": (b"x-a: &a [{b: 1}]\nconfig: {a: {<<: *a}}", "line 2: `<<` takes a map or a list of maps"),
    "an alias of nothing": (b"config: {a: *b}", "line 1 has the alias *b, and there is no &b before it"),
    "an alias of itself": (b"config: {a: &a {b: *a}}", "line 1 has an alias of what it is in"),
    "a merge of itself": (b"config: {a: &a {<<: *a}}", "line 1 has an alias of what it is in"),
    "aliases of aliases": (
        b"x-a: &a [1,1,1,1,1,1,1,1,1]\n"
        + b"".join(b"x-%c: &%c [%s]\n" % (c, c, b",".join([b"*%c" % (c - 1)] * 9)) for c in b"bcdefgh")
        + b"config: {a: *h}\n",
        "aliases repeat too much",
    ),
    "a key that is a list": (b"config: {a: {[1]: 2}}", "line 1: a key is a text"),
    "a number at the top": (b"1: {}\nconfig: {}\n", "Pulumi reads no key '1'"),
    "a key with two colons": (b"config: {'a:b:c': 1}", "config has the key 'a:b:c'"),
    "Latin-1": (
        "config:\n  a: é\n".encode("latin-1"),
        "is not UTF-8: byte 14 of the file, in line 2, is 0xe9. Fix: save it as UTF-8",
    ),
    "UTF-16 without a mark": ("config: {a: 1}".encode("utf-16-le"), "line 1 has the character U+0000"),
    "UTF-16 cut short": (b"\xff\xfe" + "config: {a: 1}".encode("utf-16-le") + b"\n", "is not UTF-16-LE: byte 31"),
    "a binary file": (bytes(range(256)), "is not UTF-8: byte 129 of the file, in line 3, is 0x80"),
    "a zero byte": (b"config:\n  a: x\0y\n", "line 2 has the character U+0000"),
    "a directive of YAML 1.2": (b"%YAML 1.2\n---\nconfig: {}\n", "line 1 begins with %"),
    "a question mark in braces": (
        b"config: {a: http://x/?b=c}",
        "line 1: Pulumi reads no ? within [] or {}. Fix: put 'http://x/?b=c' in quotes",
    ),
}

# Files that the CLI reads, and in which it drops or guesses something in silence.
REFUSED_HERE: dict[str, tuple[bytes, str]] = {
    "two documents": (b"config: {a: 1}\n---\nconfig: {a: 2}\n", "line 2 starts a second document"),
    "an empty first document": (b"---\n---\nconfig: {a: 2}\n", "line 2 starts a second document"),
    "config misspelt": (b"confg: {a: 1}", "Pulumi reads no key 'confg' at the top of a stack file. Fix: write config"),
    "config with a capital": (b"Config: {a: 1}", "Pulumi reads no key 'Config' at the top of a stack file. Fix: write config"),
    "a key beside config": (
        b"services: {}\nconfig: {}\n",
        "Pulumi reads no key 'services' at the top of a stack file. Fix: put it under config",
    ),
    "a key with and without the prefix": (
        b"config: {a: 1, 'rayline:a': 2}",
        "'a' and 'rayline:a' are the same key. Fix: keep one of them",
    ),
    "a prefix without a name": (b"config: {'rayline:': 1}", "config has the key 'rayline:'. Fix: write a name"),
    "a name without its prefix": (b"config: {':a': 1}", "config has the key ':a'. Fix: write a name"),
    "a key in two spellings": (b"config: {a: {8: 1, 0x8: 2}}", "line 1: the key '0x8' is no text. Fix: put it in quotes"),
    "a key that is nothing": (b"config: {a: {~: 1}}", "line 1: the key '~' is no text"),
    "a key that is a fraction": (b"config: {a: {1.50: 1}}", "line 1: the key '1.50' is no text"),
    "a key twice by an alias": (b"config: {a: {&k b: 1, *k : 2}}", "line 1: the key 'b' is there twice"),
    "a date": (b"config: {a: 2026-01-03}", "line 1: Pulumi writes the time 2026-01-03 in another form. Fix: put it in quotes"),
    "a time": (b"config: {a: [2026-1-3T8:00:00.5+02:00]}", "Pulumi writes the time 2026-1-3T8:00:00.5+02:00 in another form"),
    "a time without a zone": (b"config:\n  a: 2026-01-03 08:00:00\n", "line 2: Pulumi writes the time 2026-01-03 08:00:00 in"),
    "a quoted time with its tag": (b"config: {a: !!timestamp '2026-01-03'}", "Pulumi writes the time 2026-01-03 in another"),
    "an empty first line of a text": (b"config:\n  a: |\n\n    b\n", "line 2: Pulumi drops what this text begins with"),
    "a tag of one's own": (b"config: {a: [!allUsers, b]}", "line 1: the tag '!allUsers"),
    "nested without end": (b"config: {a: " + b"[" * 150 + b"]" * 150 + b"}", "is nested more than 100 levels deep"),
}
