"""The same Dockerfiles built by dockerd's classic builder and by ours: trees and configurations
must be the same. dockerd is one for all tests, with folders of its own and without networks."""

import contextlib
import gzip
import hashlib
import io
import json
import os
import re
import tarfile

from dockers import Docker as Client
from engines import Docker
from harness import main, note, test

BASE = "small:1"
# What a container's own mounts leave in its root, and what an engine puts there by itself.
OWN = {"etc", "dev", "proc", "sys", ".dockerenv", "etc/hosts", "etc/hostname", "etc/resolv.conf", "etc/mtab"}

CONTEXT = {"one": "1\n", "two": "2\n", "three.txt": "3\n", "tree/a": "a\n", "tree/deep/b": "b\n", "tree/deep/c.txt": "c\n",
           "skip/not": "x", "skip/but": "y\n", "x.log": "l", "sp ace": "blank\n", "exe": "#!/bin/sh\necho exe\n",
           ".dockerignore": "skip/*\n!skip/but\n*.log\n# comment\n\n/deepskip/**\n!deepskip/a/keep\n",
           "deepskip/a/b": "no", "deepskip/a/keep": "yes\n", "keep.logs": "k\n", "setuid": "s\n", "$name": "dollar\n"}

DOCKERFILES = {
    "env": "ENV A=1 B=\"two words\" C=$A\nENV D one  two\nENV E=${A:-x}${Z:-y}${Z:+z} F='$A' G=\\$A H=\"\\\"q\\\"\"\nENV A=2 I=$A\nRUN echo \"$A|$B|$C|$D|$E|$F|$G|$H|$I\" > /env",
    "workdir": "WORKDIR /a\nWORKDIR b\nWORKDIR ../c/./d\nENV P=/x\nWORKDIR $P/y\nRUN pwd > /pwd",
    "shell": "SHELL [\"/bin/sh\", \"-exc\"]\nRUN echo $0 > /shell\nCMD echo shell\nENTRYPOINT exec cat",
    "exec_form": "RUN [\"/bin/touch\", \"/exec $A\"]\nCMD [\"a\", \"b c\"]\nENTRYPOINT [\"/bin/echo\"]",
    "cmd_then_entrypoint": "CMD [\"kept\"]\nENTRYPOINT [\"/bin/echo\"]",
    "entrypoint_drops_cmd": "ENTRYPOINT [\"/bin/echo\"]",
    "metadata": "MAINTAINER me <me@here>\nLABEL a=1 \"b c\"=\"d e\" f='g h'\nLABEL a=2\nEXPOSE 80 53/udp 90-92\nVOLUME /v /w\nVOLUME [\"/x y\"]\nUSER shop:staff\nSTOPSIGNAL SIGQUIT",
    "healthcheck": "HEALTHCHECK --interval=1m30s --timeout=3s --retries=3 --start-period=5s CMD test -f /x",
    "healthcheck_exec": "HEALTHCHECK CMD [\"true\", \"x\"]",
    "healthcheck_none": "HEALTHCHECK CMD true\nHEALTHCHECK NONE",
    "args": "ARG A=default\nARG B\nARG C=$A-$B\nENV E=$C A2=${A}\nRUN echo \"$A|$B|$C|$E\" > /args\nENV A=env\nRUN echo $A > /over",
    "copy_file": "COPY one /f\nCOPY one /d/\nCOPY one /new/deep/name\nCOPY one two three.txt /several/",
    "copy_into_existing": "RUN mkdir /e && chmod 700 /e && chown 5:6 /e\nCOPY one /e\nCOPY tree /e",
    "copy_folder": "COPY tree /t\nCOPY tree /u/\nCOPY tree/ v/",
    "copy_all": "COPY . /all/",
    "copy_globs": "COPY t* /globs/\nCOPY *.txt /txt/\nCOPY tree/*/c.txt /deep/\nCOPY [ot]* /class/",
    "copy_json": "COPY [\"sp ace\", \"/with blank/\"]",
    "copy_over": "RUN mkdir -p /o/tree/deep/b && echo old > /o/one && ln -s /etc /o/two && echo z > /o/tree/deep/b/x\nCOPY one two /o/\nCOPY tree /o/tree",
    "copy_links": "RUN mkdir /real && ln -s /real /link && ln -s real /rel && echo t > /target && ln -s /target /flink\nCOPY one /link/\nCOPY tree /rel\nCOPY two /flink",
    "copy_chown": "COPY --chown=shop:staff one /c/one\nCOPY --chown=7:8 tree /c/tree\nCOPY --chown=9 two /c/nine\nCOPY --chown=shop tree /c2/x/y",
    "copy_setuid": "COPY setuid /suid\nCOPY exe /exe\nRUN /exe > /out",
    "copy_links_of_context": "COPY link /l1\nCOPY folderlink /l2\nCOPY linked /l3",
    "copy_same_dir": "WORKDIR /w\nCOPY one .\nCOPY two ./\nCOPY tree ./tree2\nCOPY three.txt sub/x",
    "add_archives": "ADD a.tar /x/\nADD a.tar.gz /y\nADD a.tar.bz2 a.tar.xz /z/\nADD one /x/",
    "add_over": "RUN mkdir -p /x/in && echo old > /x/in/file && ln -s /etc /x/in/sub\nADD a.tar /x",
    "add_copied_archive": "COPY a.tar.gz /kept.tar.gz",
    "run_changes": "RUN rm -rf /home/shop && mkdir /home/shop && echo n > /home/shop/new && rm /bin/yes && chmod 4755 /bin/busybox && ln /etc/passwd /etc/hard && mkfifo /fifo",
    "run_user": "USER shop\nRUN id -u > /tmp/u; id -g >> /tmp/u; echo $HOME >> /tmp/u\nUSER 0\nWORKDIR /as/root",
    "multi_line": "RUN echo a \\\n  # comment\n  && echo b \\\n\n  >> /multi",
    "escape": "# escape=`\nFROM small:1\nRUN echo a `\n  b > /esc\nENV A=`$B C=\\x",
    "stages": "FROM small:1 AS one\nRUN mkdir /o && echo s > /o/f && chown -R 3:4 /o\nFROM scratch AS two\nCOPY --from=one /o /p\nCOPY --from=0 /o/f /q/r\nCOPY --from=small:1 /bin/busybox /bin/sh\nFROM two\nCOPY --from=one --chown=1:2 /o /c\nCMD [\"x\"]",
    "scratch": "FROM scratch\nCOPY tree /\nENV A=1",
    "global_arg": "ARG T=1\nARG N=small\nFROM ${N}:$T\nARG T\nENV GOT=$T",
    "onbuild": "ONBUILD COPY one /trigger\nONBUILD RUN echo t >> /trigger\nONBUILD ENV T=1",
    "from_onbuild": "FROM {onbuild}\nRUN cat /trigger > /after",
    "volume_then_write": "RUN mkdir /vol && echo before > /vol/f\nVOLUME /vol\nRUN echo run > /other",
    "dollar": "ENV name=one\nCOPY \\$name /d1\nCOPY $name /d2\nENV PATH=/x:$PATH\nLABEL l=\"$name ${name}\"",
    "unicode": "RUN printf 'grüße' > /grüße\nLABEL ü=ö",
    "lower_case": "run touch /lower\ncopy one /c\nenv A=b",
    "many_envs": "ENV " + " ".join(f"V{i}={i}" for i in range(40)),
    "stop": "STOPSIGNAL 9\nEXPOSE 8080/TCP\nUSER 1000",
    "env_forms": "ENV A=abc\nENV B=${A:+set} C=${N:+set} D=${N:-a$A} E=\\${A} F=${A}x${A}y G=$A-$N-$A\nRUN echo \"$B|$C|$D|$E|$F|$G\" > /e",
    "env_quotes": "ENV A=\"a b\" B='c $A' C=\"it's\" D='say \"hi\"' E=a\\ b F=\"\\$A\" G=\\\\ H=\"tab\tin\"",
    "env_old_form": "ENV A a b  c \nENV B \"quoted words\" tail\nENV C $A=d\nENV D = x",
    "env_same_line": "ENV X=1\nENV X=2 Y=$X\nENV X=3 X=4",
    "env_empty": "ENV A=\nENV B=\"\" C=''\nENV A=$A.",
    "env_in_all": "ENV U=shop W=/w V=/vol P=81 L=lab S=SIGUSR1 F=one\nUSER $U\nWORKDIR $W\nVOLUME $V\nEXPOSE $P/udp\nLABEL $L=$P\nSTOPSIGNAL $S\nCOPY $F $W/$F\nUSER 0",
    "env_not_in_run": "ENV A=1\nRUN A=2; echo $A > /a\nCMD echo $A\nENTRYPOINT [\"$A\"]",
    "comment_lines": "# one\n  # indented\nENV A=1\nRUN echo a > /a # shell's own\n\n\nENV B=2",
    "continued_words": "ENV A=a\\\nb C=\\\nd\nRUN echo x\\\ny > /xy",
    "continued_comment": "RUN echo a \\\n# in between\n\n  b > /ab\nENV A=1 \\\n  # again\n  B=2",
    "trailing_blanks": "ENV A=1   \nCMD   echo hi   \nLABEL  x=y\t\nWORKDIR   /w  ",
    "carriage_returns": "ENV A=1\r\nRUN echo $A > /a\r\nLABEL b=2\r",
    "tabs": "\tENV\tA=1\n\tRUN\techo $A\t> /t",
    "workdir_variables": "ENV D=deep\nWORKDIR $D\nWORKDIR ${D}er/../$D\nWORKDIR ./x//y/\nWORKDIR /\nWORKDIR ..\nRUN pwd > /pwd",
    "workdir_user": "USER shop\nWORKDIR /made/by/whom\nRUN ls -ld /made /made/by /made/by/whom | cut -c1-10 > /tmp/m; id -un >> /tmp/m",
    "workdir_existing": "RUN mkdir /e && chown 5:6 /e && chmod 700 /e && ln -s /e /l\nWORKDIR /e\nWORKDIR /l/sub",
    "user_forms": "USER 1000:50\nUSER shop\nUSER :staff\nUSER 5",
    "chown_forms": "COPY --chown=5 one /a\nCOPY --chown=5:6 one /b\nCOPY --chown=shop:7 one /c\nCOPY --chown=0:shop tree /e/",
    "chown_variable": "ARG WHO=shop\nENV G=staff\nCOPY --chown=$WHO:${G} one /v",
    "chown_add": "ADD --chown=7:8 a.tar /x/\nADD --chown=7:8 one tree /y/",
    "copy_dot": "WORKDIR /here\nCOPY tree .\nCOPY one ./sub/\nCOPY two ../up",
    "copy_slashes": "COPY //one /a\nCOPY ./tree//deep/ /b//c/\nCOPY /tree/a /d\nCOPY tree/../one /e",
    "copy_json_several": "COPY [\"one\", \"two\", \"/j/\"]\nADD [\"sp ace\", \"/k/\"]",
    "copy_over_file": "RUN echo old > /o && chmod 600 /o && chown 9:9 /o\nCOPY one /o\nCOPY --chown=3:3 two /o",
    "copy_empty_folder": "COPY empty /made\nCOPY empty/ /also/",
    "copy_question": "COPY ?????.txt /q/\nCOPY t?o /r\nCOPY tree/[a-c] /s/\nCOPY tree/dee[^x] /t/",
    "copy_ignored": "COPY skip /skip\nCOPY *.log* /logs/",
    "copy_deep_links": "RUN mkdir -p /r/a && ln -s a /r/b && ln -s ../r/b /r/c\nCOPY one /r/c/one\nCOPY tree /r/b/t\nCOPY two /r/c/",
    "copy_from_number": "FROM small:1\nRUN echo s > /s && ln -s /s /sl && mkdir /sd && ln -s ../s /sd/l\nFROM small:1\nCOPY --from=0 /s /sl /t/\nCOPY --from=0 /sd /sd\nCOPY --from=0 s /plain",
    "copy_from_glob": "FROM small:1 AS g\nRUN mkdir /g && touch /g/a1 /g/a2 /g/b && chown 4:5 /g/a1\nFROM scratch\nCOPY --from=g /g/a* /to/",
    "stage_case": "FROM small:1 AS Mixed\nRUN echo m > /m\nFROM mixed\nCOPY --from=MIXED /m /n",
    "stage_args": "ARG G=global\nFROM small:1 AS a\nARG G\nARG L=$G\nRUN echo $G $L > /a\nFROM a\nARG L\nRUN echo \"[$G][$L]\" > /b",
    "args_between": "ARG X=one\nENV X=$X.env\nARG X=two\nRUN echo $X > /x\nLABEL x=$X",
    "arg_without_value": "ARG N\nENV M=${N:-none}\nRUN echo \"[$N]\" > /n",
    "arg_predefined": "RUN echo \"[$HTTP_PROXY][$http_proxy]\" > /p",
    "shell_forms": "RUN a=1 && echo \"$a\" 'x  y' > /1\nRUN [\"sh\", \"-c\", \"echo $0 > /2\", \"zero\"]\nRUN [ -e /1 ] && echo yes > /3\nCMD [ \"a\" , \"b\" ]",
    "json_that_is_none": "CMD ['single']\nENTRYPOINT [\"a\"\nRUN [ -d / ] && echo > /x",
    "cmd_empty": "CMD [\"x\"]\nCMD []\nENTRYPOINT []",
    "shell_then_forms": "SHELL [\"/bin/sh\", \"-c\", \"-e\"]\nCMD run me\nSHELL [\"/bin/sh\", \"-c\"]\nENTRYPOINT me too",
    "healthcheck_forms": "HEALTHCHECK --timeout=1h --interval=0.5s CMD [\"a\"]\nHEALTHCHECK --retries=0005 CMD b",
    "onbuild_many": "ONBUILD WORKDIR /ob\nONBUILD COPY --chown=shop one ./\nONBUILD ARG Q=1\nONBUILD RUN echo $Q > q\nONBUILD LABEL q=$Q\nONBUILD USER shop",
    "from_onbuild_many": "FROM {onbuild_many}\nRUN pwd > /tmp/p; id -un >> /tmp/p",
    "volume_forms": "VOLUME /a /b\nVOLUME [\"/c\",\"/d e\"]\nVOLUME /a\nRUN mkdir -p /f && echo f > /f/f\nVOLUME /f\nCOPY one /f/one",
    "expose_forms": "EXPOSE 80/tcp 80/udp 80\nEXPOSE 7000-7002/udp\nEXPOSE 8080/TCP",
    "label_forms": "LABEL a.b-c=1 \"x y\"='z' q=\"a\\\"b\"\nLABEL old form here\nLABEL e=$N f=\\$N",
    "maintainer_twice": "MAINTAINER one\nMAINTAINER \"two words\"",
    "directive_late": "ENV A=1\n# escape=`\nENV B=a\\\nb",
    "many_runs": "\n".join(f"RUN echo {i} > /n{i}" for i in range(5)),
    "labels": "LABEL multi=\"a\\\nb\" other=c\nLABEL empty=",
}

FAILURES = [
    "FROM small:1\nCOPY nothing /x\n", "FROM small:1\nCOPY ../x /x\n", "FROM small:1\nCOPY t* /x\n", "FROM small:1\nRUN exit 3\n",
    "FROM small:1\nFOO\n", "RUN x\n", "", "FROM small:1\nENV a\n", "FROM small:1\nCOPY one\n", "FROM small:1\nEXPOSE x\n",
    "FROM small:1\nUSER\n", "FROM small:1\nCOPY --chown=nobodyhere one /x\n", "FROM small:1\nCOPY tree /etc/passwd\n",
    "FROM small:1\nCOPY --from=7 a b\n", "FROM small:1\nCMD [\"a\", 1]\n", "FROM small:1\nSTOPSIGNAL NOPE\n", "FROM a b\n",
    "FROM small:1\nONBUILD FROM x\n", "FROM small:1\nLABEL\n", "FROM small:1\nENV A=${B\n", "FROM scratch\n",
    "FROM small:1\nHEALTHCHECK --retries=0 CMD x\n", "FROM small:1\nENV A=1 # no comment\n", "FROM small:1 AS a\nFROM small:1 AS A\n",
    "FROM small:1\nCOPY --chown=:staff one /d\n", "FROM small:1\nENV C=\\\n  d e\n", "FROM small:1\nCOPY http://localhost:1/x /x\n",
    "FROM small:1\nADD http://localhost:1/x /x\n", "FROM small:1\nCOPY one two /x\n",
]

# name -> Dockerfile, or it and more words for `build`
MORE = {
    "ignored_dockerfile": "COPY . /all/",
    "onbuild_copy_from": "ONBUILD COPY --chown=5:6 tree /t\nONBUILD RUN cat /t/a > /read\nONBUILD VOLUME /ov\nONBUILD EXPOSE 99",
    "from_onbuild_copy_from": "FROM {onbuild_copy_from}\nONBUILD RUN echo again > /again",
    "from_onbuild_twice": "FROM {from_onbuild_copy_from}\nRUN ls / > /tmp/ls",
    "onbuild_in_stage": "FROM {onbuild_many} AS o\nRUN echo x > /tmp/x\nFROM small:1\nCOPY --from=o /ob /ob",
    "onbuild_shell": "SHELL [\"/bin/sh\", \"-ec\"]\nONBUILD RUN echo $- > /flags\nONBUILD CMD from trigger",
    "from_onbuild_shell": "FROM {onbuild_shell}",
    "args_before_from": "ARG A=small\nARG B=1\nARG C=${A}:${B}\nFROM $C\nARG B\nARG C\nRUN echo \"[$A][$B][$C]\" > /args",
    "arg_given_before_from": ("ARG TAG=none\nFROM small:$TAG\nARG TAG=inner\nENV T=$TAG", ["--build-arg", "TAG=1"]),
    "arg_in_stage_name": "ARG S=one\nFROM small:1 AS one\nRUN echo 1 > /n\nFROM ${S}\nRUN cp /n /m",
    "stages_in_each_other": "FROM small:1 AS a\nRUN echo a > /a\nFROM a AS b\nRUN echo b > /b\nFROM b AS c\nCOPY --from=a /a /c\n"
                            "FROM c\nCOPY --from=b /b /d\nCOPY --from=2 /c /e",
    "target": ("FROM small:1 AS first\nRUN echo 1 > /1\nFROM small:1 AS second\nRUN exit 7", ["--target", "first"]),
    "target_case": ("FROM small:1 AS Some\nENV A=0\nFROM small:1\nRUN exit 7", ["--target", "sOME"]),
    "arg_predefined_given": ("RUN echo \"[$HTTP_PROXY][$no_proxy]\" > /p\nARG no_proxy\nRUN echo \"[$no_proxy]\" > /q",
                             ["--build-arg", "HTTP_PROXY=p", "--build-arg", "no_proxy=n"]),
    "arg_empty_given": ("ARG A=default\nARG E=x\nRUN echo \"[$A][$E]\" > /a\nENV B=${A:-unset}", ["--build-arg", "A="]),
    "arg_over_env": ("ENV A=env\nARG A=arg\nRUN echo $A > /a\nLABEL a=$A", ["--build-arg", "A=given"]),
    "chown_names": "RUN echo 'odd:x:77:78::/:/bin/sh' >> /etc/passwd; printf 'oddgroup:x:79:\\nodd:x:80:\\n' >> /etc/group\n"
                   "COPY --chown=odd one /1\nCOPY --chown=odd:oddgroup tree /2\nCOPY --chown=77:oddgroup two /3\nADD --chown=odd a.tar /4/",
    "chown_from_stage": "FROM small:1 AS s\nRUN mkdir /s && echo s > /s/f && chown 9:9 /s/f && chmod 4711 /s/f\n"
                        "FROM small:1\nCOPY --from=s --chown=shop:staff /s /t\nCOPY --chown=1 --from=s /s/f /u",
    "wildcards": "COPY tree/*/* /1/\nCOPY [a-e]*e /2/\nCOPY */but /3/\nCOPY t*/a /5/\nCOPY ?ne /6",
    "wildcard_folders": "COPY t*e /1/\nCOPY l*ed /2/\nCOPY tree/* /3/",
    "add_archives_odd": "ADD empty.tar /1/\nADD not.tar.gz /2/\nADD links.tar /3\nADD a.tar a.tar.gz /4/",
    "add_wildcard_archives": "ADD a.tar* /1/\nADD *.gz /2/",
    "add_archive_onto_file": "RUN mkdir /x && echo old > /x/plain && chmod 600 /x/plain\nADD links.tar /x",
    "escape_backtick_words": "# escape=`\nFROM small:1\nENV A=a` b B=\"c`\"d\" C=e\\f D='g`h'\nRUN echo x`\ny > /xy",
    "escape_spaces": "#   ESCAPE  =  `  \nFROM small:1\nRUN echo 1 `\n 2 > /o",
    "syntax_directive": "# syntax=example.org/never/fetched:1\nFROM small:1\nENV A=1",
    "env_nested": "ENV A=1 B=B\nENV C=${A:-${B}} D=${N:-${A}} E=${N:+x}y F=${A:+$B$B}\nENV G=\"${A:-\"q\"}\"",
    "env_braces": "ENV A=x\nENV B=${A}y C=$A.y D=$A-y E=$Ay F=\\${A} G=$ H=a$ I=$$A J=${A}$",
    "shell_json_odd": "SHELL [ \"/bin/sh\" , \"-c\" ]\nRUN echo a   b > /a\nSHELL [\"/bin/busybox\", \"sh\", \"-xc\"]\nRUN echo $0 > /b\nCMD c d",
    "healthcheck_replaced": "HEALTHCHECK --retries=5 CMD a\nHEALTHCHECK --interval=3m CMD [\"b\"]",
    "healthcheck_none_alone": "HEALTHCHECK NONE",
    "stop_signals": "STOPSIGNAL sigterm\nSTOPSIGNAL SIGRTMIN+3",
    "volume_then_run": "RUN mkdir /v && echo 1 > /v/1\nVOLUME /v\nRUN echo 2 > /v/2; ls /v > /seen\nCOPY one /v/3",
    "workdir_relative": "WORKDIR a/b\nWORKDIR c\nRUN pwd > p\nWORKDIR ../../d e\nCOPY one .",
    "user_id_and_group": "RUN id > /i0\nUSER 1234:staff\nRUN id -u > /tmp/i1; id -g >> /tmp/i1\nUSER shop:0\nRUN id -g > /tmp/i2",
    "labels_many_lines": "LABEL a=1 \\\n  b=\"two \\\nlines\" \\\n  # a comment\n  c='3' \\\n  \"d e\"=4\nLABEL a= b=\"\"",
    "expose_ranges": "EXPOSE 9000-9002 9100-9101/sctp 1-2/TCP\nARG P=77\nEXPOSE $P ${P}1-${P}3/udp",
    "cmd_with_quotes": "CMD echo \"a  b\" 'c' \\\n  d\nENTRYPOINT [\"sh\",\"-c\",\"echo \\\"x\\\" \\\\ \\u00e9\"]",
    "entrypoint_of_stage": "FROM small:1 AS e\nENTRYPOINT [\"/e\"]\nCMD [\"old\"]\nFROM e\nENTRYPOINT [\"/f\"]",
    "run_removes_base_files": "RUN rm /etc/group && rm -r /home && mkdir /home && touch /home/x && mv /bin/yes /bin/no",
    "run_and_modes": "RUN umask 077; mkdir -p /m/n && touch /m/n/o && chmod 1777 /m && chown 3:4 /m/n && touch -d '2001-01-01' /m/n/o",
    "copy_to_root_dot": "WORKDIR /w\nCOPY one /\nCOPY two /.\nCOPY tree/a ../\nCOPY three.txt ./",
    "copy_same_names": "COPY one tree/../one ./two /s/\nCOPY tree tree/deep /t/",
}

IGNORES = {
    "nothing": "\n\n# only a comment\n   \n",
    "all": "*",
    "all_but": "*\n!tree/deep\n!one",
    # With a wildcard in the middle of an exception docker does not look into the folders below it; we do, as BuildKit does.
    "all_but_inside": "**\n!tree/deep/c.txt\n!**/*.log",
    "twice": "tree\n!tree/deep/b\ntree/deep\n!tree/deep/c.txt",
    "stars": "**/b\n*/*/c.txt\ntree/**",
    "stars_inside": "tree/**/b\n**/a\nski*/n?t",
    "slashes": "/one\ntwo/\n./three.txt\ntree//deep/\n//sp ace",
    "dots": "./tree/../one\n../one\n.\n",
    "classes": "[ot]*\n![!t]ne\n\\$name",
    "itself": "Dockerfile\n.dockerignore\n**/Dockerfile",
    "blanks": "  one  \n\ttwo\t\n! three.txt\n!  tree/a\n#one\n #tree",
    "order": "!one\none\n*.txt\n!three.txt\nthree*",
    "returns": "one\r\ntree/deep\r\n!tree/deep/b\r\n",
    "mark": "\ufeffone\ntwo\n",
}


def make_context(folder):
    for name, content in CONTEXT.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
    os.chmod(folder / "one", 0o640)
    os.chmod(folder / "exe", 0o755)
    os.chmod(folder / "setuid", 0o6755)
    os.chmod(folder / "tree/deep", 0o711)
    os.chmod(folder / "tree", 0o700)
    os.symlink("one", folder / "link")
    os.symlink("tree", folder / "folderlink")
    (folder / "empty").mkdir()
    (folder / "linked").mkdir()
    os.symlink("../one", folder / "linked/up")
    os.symlink("/etc/passwd", folder / "linked/absolute")
    for name, mode in (("a.tar", "w"), ("a.tar.gz", "w:gz"), ("a.tar.xz", "w:xz"), ("a.tar.bz2", "w:bz2")):
        with tarfile.open(folder / name, mode) as tar:
            for path, kind, owner in (("in", tarfile.DIRTYPE, 5), ("in/sub", tarfile.DIRTYPE, 6), ("in/sub/x", tarfile.REGTYPE, 7),
                                      ("in/file", tarfile.REGTYPE, 8), ("in/" + name, tarfile.REGTYPE, 9), ("in/l", tarfile.SYMTYPE, 0)):
                entry = tarfile.TarInfo(path)
                entry.type, entry.uid, entry.gid, entry.mode, entry.linkname = kind, owner, owner + 1, 0o751, "file"
                entry.size = 4 if kind == tarfile.REGTYPE else 0
                tar.addfile(entry, io.BytesIO(b"tar\n"))
    with tarfile.open(folder / "empty.tar", "w"):
        pass
    (folder / "not.tar.gz").write_bytes(gzip.compress(b"no tar at all\n" * 50))
    with tarfile.open(folder / "links.tar", "w") as tar:
        for path, kind, target in (("plain", tarfile.REGTYPE, ""), ("hard", tarfile.LNKTYPE, "plain"),
                                   ("soft", tarfile.SYMTYPE, "../../etc/passwd"), ("pipe", tarfile.FIFOTYPE, ""),
                                   ("no/entry/above", tarfile.REGTYPE, ""), ("plain", tarfile.REGTYPE, "")):
            entry = tarfile.TarInfo(path)
            entry.type, entry.linkname, entry.mode = kind, target, 0o640
            tar.addfile(entry)


def tree(data):
    """What is in a root: {path: everything but times}."""
    found, names = {}, {}
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        for entry in tar:
            path = entry.name.removeprefix("./").strip("/")
            if path in ("", ".") or path in OWN or path.split("/")[0] in ("dev", "proc", "sys"):
                continue
            if entry.islnk():
                found[path] = found.get(entry.linkname.removeprefix("./"))
                continue
            content = hashlib.sha256(tar.extractfile(entry).read()).hexdigest()[:12] if entry.isreg() else None
            found[path] = (entry.type, oct(entry.mode & 0o7777), entry.uid, entry.gid, entry.linkname, content)
    return found


def normal(config):
    """A configuration without what says nothing."""
    ignored = {"Image", "Hostname", "Domainname", "ArgsEscaped", "AttachStdin", "AttachStdout", "AttachStderr", "Tty",
               "OpenStdin", "StdinOnce"}
    return {key: value for key, value in config.items() if key not in ignored and value not in (None, "", [], {}, False)}


def texts(history):
    """created_by, without digests, which are of each engine's own."""
    return [(re.sub(r"(file|multi|dir):[0-9a-f]+", "X", entry.get("created_by", "")), bool(entry.get("empty_layer")))
            for entry in history]


def docker_side(docker, name):
    image = json.loads(docker("image", "inspect", name).out)[0]
    container = docker("create", name, "x").out.strip()
    data = docker("export", container, text=False).out
    docker("rm", container)
    saved = docker("save", name, text=False).out
    with tarfile.open(fileobj=io.BytesIO(saved)) as tar:
        manifest = json.load(tar.extractfile("manifest.json"))[0]
        config = json.load(tar.extractfile(manifest["Config"]))
    return tree(data), normal(image["Config"]), texts(config["history"]), image["Author"]


def our_side(instance, name):
    details = json.loads(instance.cloche("rpc", "call", "image.inspect", f"image={name}").out)
    whole = json.loads(details["config"]) if isinstance(details["config"], str) else details["config"]
    container = instance.cloche("create", name, "x").out.strip()
    data = instance.cloche("export", container, text=False).out
    instance.cloche("rm", container)
    return tree(data), normal(whole["config"]), texts(whole["history"]), whole.get("author", "")


def difference(ours, theirs):
    keys = sorted(set(ours) | set(theirs))
    return "\n".join(f"  {key}: ours {ours.get(key)}, docker's {theirs.get(key)}" for key in keys
                     if ours.get(key) != theirs.get(key))


@contextlib.contextmanager
def both(instance, images, scratch, unique, *options):
    """dockerd, a context, and what is wrong so far."""
    docker = Docker(scratch, images, unique,
                    ["--cgroup-parent", f"/{unique}", "--storage-driver", "overlay2", *options])
    wrong = []
    try:
        instance.cloche("load", "-i", images.docker_archive(BASE))
        context = scratch / "context"
        context.mkdir()
        make_context(context)
        yield docker, context, wrong
    finally:
        docker.close()
    assert not wrong, "\n".join(wrong)


def compare(instance, docker, context, name, words, wrong):
    options = ["-t", f"built:{name}", "--network", "none", "--label", "last=1", *words]
    theirs = docker("build", *options, context, env={"DOCKER_BUILDKIT": "0"}, code=None)
    ours = instance.cloche("build", *options, context, code=None)
    if theirs.code or ours.code:
        wrong.append(f"{name}: docker {theirs.code} {theirs.err[-300:]!r} ours {ours.code} {ours.err[-300:]!r}")
        return
    ours, theirs = our_side(instance, f"built:{name}"), docker_side(docker, f"built:{name}")
    for kind, a, b in zip(("tree", "config"), ours, theirs):
        if a != b:
            wrong.append(f"{name}: {kind}\n{difference(a, b)}")
    if ours[2] != theirs[2]:
        wrong.append(f"{name}: history\n" + "\n".join(f"  ours {a}\n  docker's {b}" for a, b in zip(ours[2], theirs[2]) if a != b))
    if ours[3] != theirs[3]:
        wrong.append(f"{name}: author {ours[3]!r} {theirs[3]!r}")


def write_dockerfile(context, text):
    if "FROM" not in text:
        text = "FROM small:1\n" + text
    (context / "Dockerfile").write_text(re.sub(r"{(\w*onbuild\w*)}", r"built:\1", text) + "\n")


@test
def dockerfiles_become_the_same_images(instance, images, scratch, unique):
    with both(instance, images, scratch, unique) as (docker, context, wrong):
        for name, text in DOCKERFILES.items():
            write_dockerfile(context, text)
            compare(instance, docker, context, name, ["--build-arg", "B=given"], wrong)
        for text in FAILURES:
            (context / "Dockerfile").write_text(text)
            theirs = docker("build", "--network", "none", context, env={"DOCKER_BUILDKIT": "0"}, code=None)
            ours = instance.cloche("build", "--network", "none", context, code=None)
            if os.environ.get("SHOW"):
                note(f"{text!r}\n docker {theirs.code}: {theirs.err.strip()}\n ours   {ours.code}: {ours.err.strip()}")
            if bool(theirs.code) != bool(ours.code):
                wrong.append(f"{text!r}: docker {theirs.code} {theirs.err!r}, ours {ours.code} {ours.err!r}")


@test
def odd_dockerfiles_become_the_same_images(instance, images, scratch, unique):
    with both(instance, images, scratch, unique) as (docker, context, wrong):
        write_dockerfile(context, DOCKERFILES["onbuild_many"])
        compare(instance, docker, context, "onbuild_many", [], wrong)
        for name, given in MORE.items():
            text, words = given if isinstance(given, tuple) else (given, [])
            write_dockerfile(context, text)
            compare(instance, docker, context, name, words, wrong)


@test
def the_same_is_ignored(instance, images, scratch, unique):
    with both(instance, images, scratch, unique) as (docker, context, wrong):
        write_dockerfile(context, "COPY . /all/")
        for name, text in IGNORES.items():
            (context / ".dockerignore").write_text(text)
            compare(instance, docker, context, name, [], wrong)


SQUASHED = {
    "added": "RUN echo 1 > /1 && echo gone > /gone\nENV A=1\nRUN echo 2 > /2 && rm /gone\nLABEL a=b",
    "removed": "RUN rm /bin/yes && rm -r /home\nRUN mkdir /home && echo new > /home/new\nRUN rm /home/new",
    "replaced": "RUN rm -r /home && echo file > /home\nRUN rm /home && mkdir -m 711 /home && chown 5:6 /home\nRUN echo a > /tmp/a\nRUN rm -r /tmp; ln -s home /tmp",
    "back": "RUN cp /etc/passwd /kept && rm /etc/passwd\nRUN mv /kept /etc/passwd && ln /etc/passwd /etc/other",
    "deep": "COPY tree /a/tree\nCOPY tree /a/b/tree\nRUN rm -r /a/tree/deep && mkdir /a/tree/deep && echo x > /a/tree/deep/x\nRUN chmod 700 /a/b && mkfifo /a/b/fifo",
    "stages": "FROM small:1 AS one\nRUN echo 1 > /1; echo 2 > /2\nFROM one\nRUN rm /1\nCOPY --from=one /2 /3\nRUN rm /2",
    "scratch": "FROM scratch\nCOPY tree /\nCOPY one /one\nENV A=1",
}


def top_layer(saved):
    """How many layers there are, what is in the uppermost but folders, and the comment of the history's last entry."""
    with tarfile.open(fileobj=io.BytesIO(saved)) as tar:
        manifest = json.load(tar.extractfile("manifest.json"))[0]
        history = json.load(tar.extractfile(manifest["Config"]))["history"]
        with tarfile.open(fileobj=tar.extractfile(manifest["Layers"][-1])) as layer:
            names = {entry.name.removeprefix("./") for entry in layer if not entry.isdir()}
    return len(manifest["Layers"]), names, re.sub("sha256:[0-9a-f]{64}", "X", history[-1]["comment"])


def without_hidden(names, opaque):
    """dockerd names all that a folder no longer has, where we say that it has nothing of before."""
    return {name for name in names if not (os.path.basename(name).startswith(".wh.") and os.path.dirname(name) in opaque)}


@test
def squashed_images_are_the_same(instance, images, scratch, unique):
    with both(instance, images, scratch, unique, "--experimental") as (docker, context, wrong):
        for name, text in SQUASHED.items():
            write_dockerfile(context, text)
            compare(instance, docker, context, name, ["--squash"], wrong)
            if wrong:
                return
            ours = top_layer(instance.cloche("save", f"built:{name}", text=False).out)
            theirs = top_layer(docker("save", f"built:{name}", text=False).out)
            opaque = {os.path.dirname(path) for path in ours[1] if path.endswith("/.wh..wh..opq")}
            ours, theirs = ((count, without_hidden(names, opaque), comment) for count, names, comment in (ours, theirs))
            if ours != theirs:
                wrong.append(f"{name}: layers\n  ours {ours}\n  docker's {theirs}")
        # What adds no file fails there.
        write_dockerfile(context, "ENV A=1")
        instance.cloche("build", "--squash", "-t", "built:nothing", context)
        assert instance.cloche("run", "--rm", "built:nothing", "sh", "-c", "echo $A").out == "1\n"
        # Through the door, which says that it can; the steps are those of before.
        client = Client(instance)
        assert client.ask("GET", "/info")[1]["ExperimentalBuild"] is True
        write_dockerfile(context, SQUASHED["stages"])
        client.env["DOCKER_BUILDKIT"] = "0"
        out = client("build", "--squash", "-t", "built:door", context).out
        assert "Using cache" in out, out
        layers = [len(client.ask("GET", f"/images/{name}/json")[1]["RootFS"]["Layers"]) for name in (BASE, "built:door")]
        assert layers[1] == layers[0] + 2, layers


if __name__ == "__main__":
    main()
