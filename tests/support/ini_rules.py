# A collection of rules of circus.ini files, each in a few lines, and a file of some of them.

from __future__ import annotations

from pathlib import Path

USE = "circus.plugins.CircusPlugin"

# Each is (lines within the plugin's section, the rest of the main file, an included file).
RULES: dict[str, tuple[str, str, str]] = {
    "equals": ("a1 = one\na2=two\na3   =   three", "", ""),
    "colon": ("b1: one\nb2 :two\nb3 : a=b", "", ""),
    "equals in the value": ("c1 = a=b:c\nc2 = ==", "", ""),
    "case of keys": ("Case = upper\ncase = lower\nCASE = all", "", ""),
    "first value of a key": ("dup = first\ndup = second", "", ""),
    "second value continued": ("dup2 = first\ndup2 = second\n  more", "", ""),
    "continuation": ("multi = one\n  two\n\tthree", "", ""),
    "continuation after a blank line": ("gap = one\n\n\n  two", "", ""),
    "comment within a value": ("split = one\n# comment\n  two\n; comment\nrem x\n  three", "", ""),
    "indented comment is data": ("data = one\n  # two\n  ; three", "", ""),
    "quoted continuation": ('qc = "one\n  two"', "", ""),
    "comment lines": ("# c = 1\n; c = 2\nrem c = 3\nREM c = 4\nrem\nremark = 5", "", ""),
    "hash is data": ("url = http://host/#frag\nhash = a # b", "", ""),
    "semicolon": (
        "s1 = a ; comment\ns2 = a;b\ns3 = a;b ; c\ns4 = ;x\ns5 = ;x \ns6 = a\t;b",
        "",
        "",
    ),
    "two empty quotes": ('e1 = ""\ne2 = "" ; nothing\ne3 =\ne4 :\ne5 = \'\'', "", ""),
    "percent": ("p1 = %(a1)s\np2 = 100%\np3 = %%", "", ""),
    "double quotes": ('dq1 = "a b"\ndq2 = "a \\"b\\" \\\\ \\c"\ndq3 = " a "', "", ""),
    "single quotes": ("sq1 = 'a b'\nsq2 = 'a \"b\" \\'", "", ""),
    "quotes within": ('qw1 = {"a": 1}\nqw2 = "a" "b"\nqw3 = a"b c"d\nqw4 = "a"b', "", ""),
    "one quote": ("oq = it's", "", ""),
    "backslashes": ("bs1 = C:\\temp\nbs2 = a\\\\b\nbs3 = a\\ b\nbs4 = \\d+\\.\nbs5 = x\\", "", ""),
    "backslash first": ("bf1 = \\ a\nbf2 = \\a\nbf3 = \\\\ a", "", ""),
    "dollar": ("d1 = $HOME\nd2 = `id`\nd3 = ~/x\nd4 = *\nd5 = $WID", "", ""),
    "triple colon": ("tc1 = a:::b\ntc2 = a:\ntc3 = ::a\ntc4 = :a", "", ""),
    "white space": ("ws1 = a b\nws2 =   a   b   \nws3 = \u00a0a\u00a0", "", ""),
    "not ascii": ("ü = ä\nn2 = \u2028x\x85y", "", ""),
    "no key": ("= nothing\n: x", "", ""),
    "indented first line": ("", "[plugin:indent]\n  use = x\nuse = " + USE + "\n a = 1", ""),
    "priority": ("priority = 007", "", ""),
    "name": ("name = mine\n__name__ = yours", "", ""),
    "reserved name continued": ("__name__ = a\n  b", "", ""),
    "watcher options": (
        (
            "priority = 5\nwarmup_delay = 1\nstop_signal = QUIT\nsingleton = True\nmax_retry = 3\n"
            "stdout_stream.class = FileStream\nstdout_stream.filename = x.log\nactive = no"
        ),
        "",
        "",
    ),
    "environment": (
        (
            "v1 = $(circus.env.PLUG_HOME)/x\nv2 = ((circus.env.plug_home))"
            "\nv3 = $(CIRCUS.ENV.Plug_Home)\nv4 = $(circus.env.no_such)\nv5 = $(circus.plug_home)"
            "\nv6 = $(env.plug_home)"
            "\nv7 = $(circus.env.plug.dotted-name)\nv8 = $(circus.circus.env.plug_home)"
            "\nv9 = $(circus.env.PLUG_HOME\nv10 = $(circus.env.)\nv11 = $(circus.env)"
            "\nv12 = $(circus.env.__name__)\nv13 = $(circus.wid)\nv14 = $PLUG_HOME"
        ),
        "",
        "",
    ),
    "environment with spaces": (
        (
            "vs1 = $(circus.env.PLUG_SPACED)\nvs2 = '$(circus.env.PLUG_SPACED)'"
            "\nvs3 = $(circus.env.PLUG_QUOTED)\nvs4 = $(circus.env.PLUG_NESTED)"
        ),
        "",
        "",
    ),
    "env section": (
        (
            "w1 = $(circus.env.new)\nw2 = $(circus.env.plug_home)\nw3 = $(circus.env.chain)"
            "\nw4 = $(circus.env.other)\nw5 = $(circus.env.__name__)"
        ),
        (
            "[env]\nNEW = new\nplug_home = /elsewhere\n"
            "chain = $(circus.env.NEW)$(circus.env.plug_home)"
            "\nother = $(circus.env.plug_nested)"
        ),
        "",
    ),
    "env section with another case": (
        "x1 = $(circus.env.shade)",
        "[env]\nshade = lower\nSHADE = upper\n",
        "",
    ),
    "env pattern": ("y1 = $(circus.env.only)", "[env:*]\nonly = watchers\n", ""),
    "section repeated": ("z1 = one", "[plugin:p]\nz1 = again\nz2 = two\n", ""),
    "sections in disorder": (
        "",
        f"[plugin:zz]\nuse = {USE}\n[plugin:B]\nuse: {USE}\n[plugin:aa]\nuse ={USE}\n",
        "",
    ),
    "section names": (
        "",
        (
            f"[plugin:two words] tail\nuse = {USE}\n[plugin:a]b]\nuse = {USE}\n"
            f"[ plugin:spaced ]\nuse = {USE}\n[Plugin:upper]\nx = 1\n[plugins]\ny = 2\n"
        ),
        "",
    ),
    "empty section": ("", "[plugin:empty]\n# nothing\n[watcher:none]\n[plugin:empty2]\n", ""),
    "other sections": (
        "",
        (
            "[watcher:w]\ncmd = sleep $(circus.env.plug_home)\nnumprocesses = 2\n"
            "[socket:s]\nhost = localhost\nport = 0\n[env:w]\nA = b\n[anything]\nx = y\n"
            "[circusplug]\n"
            "stop_timeout = 3\n"
        ),
        "",
    ),
    "default section": (
        "df2 = own",
        "[DEFAULT]\ndf1 = all\ndf2 = default\n[watcher:d]\ncmd = x\n[plugin:nothing]\nuse = "
        + USE
        + "\n",
        "",
    ),
    "default section as environment": (
        "de1 = $(circus.env.df3)$(circus.env.use)",
        "[DEFAULT]\ndf3 = all\n[env]\nx = 1\n",
        "",
    ),
    "include": ("", "[circus]\ninclude = extra.ini\n", f"[plugin:extra]\nuse = {USE}\nx = 1\n"),
    "include continued": (
        "i1 = main",
        "[circus]\ninclude = nothing.ini\n  # really\n extra.*\n",
        f"[plugin:p]\ni1 = include\ni2 = include\n  more\nuse = {USE}\n[watcher:i]\ncmd = y\n",
    ),
    "include directory": (
        "",
        "[circus]\ninclude_dir = $(circus.env.PLUG_INCLUDE).d no.d\n",
        "[env]\nFROM = include\n[circus]\nloglevel = DEBUG\n[watcher:i]\ncmd = z\ncopy_env = 1\n",
    ),
    "include by [env] is no include": (
        "",
        "[env]\nWHERE = extra.ini\n[circus]\ninclude = $(circus.env.WHERE)\n",
        f"[plugin:extra]\nuse = {USE}\n",
    ),
    "include within an include": (
        "",
        "[circus]\ninclude = extra.ini\n",
        "[circus]\ninclude = main.ini\ninclude_dir = .\n",
    ),
    "include of itself": ("", "[circus]\ninclude_dir = .\n", "[watcher:self]\ncmd = x\n"),
    "include in the default section": (
        "",
        "[DEFAULT]\ninclude = extra.ini\n[circus]\nloglevel = error\n[watcher:v]\ncmd = v\n",
        "[watcher:w]\ncmd = w\n",
    ),
    "continued in an include": (
        "ci = one",
        "[circus]\ninclude = extra.ini\n",
        "[plugin:p]\nci = two\n  three\n",
    ),
    "circus options": (
        "",
        (
            "[circus]\nendpoint = tcp://127.0.0.1:7777\npubsub_endpoint = ipc://x.sock\n"
            "check_delay = 1.5\nloglevel = WARNING\n"
            "logoutput = $(circus.env.PLUG_HOME)/log ; here\n"
            "statsd = yes\numask = 022\npidfile = pid\nfqdn_prefix = x\n"
        ),
        "",
    ),
    "no option": ("nothing here", "", ""),
    "unclosed section": ("", "[plugin:open\nx = 1\n[]\n", ""),
    "line endings": ("le1 = a\r\nle2 = b\rle3 = c\r\n  d", "", ""),
    "other line breaks": ("lb1 = a\x0bb\nlb2 = a\x0cb\x1cc\n\x0blb3 = d", "", ""),
}


def write_rules(folder: Path, *names: str) -> Path:
    rules = [RULES[name] for name in names]
    inside = "".join(f"{inside}\n" for inside, _, _ in rules)
    outside = "".join(f"{outside}\n" for _, outside, _ in rules)
    path = folder / "main.ini"
    included = "".join(f"{included}\n" for _, _, included in rules)
    (folder / "extra.d").mkdir(exist_ok=True)
    text = f"[plugin:p]\nuse = {USE}\n{inside}{outside}"
    path.write_text(text, encoding="utf-8", newline="")
    for place in (folder / "extra.ini", folder / "extra.d" / "inner.ini"):
        place.write_text(included, encoding="utf-8", newline="")
    return path
