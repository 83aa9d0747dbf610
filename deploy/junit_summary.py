#!/usr/bin/env python3
"""Prints "PASSED FAILED SKIPPED" of a JUnit file as ctest writes it.

A test that could not be run (no executable) is a failure, as it is for ctest;
a test that skipped itself is not.
"""
import sys
import xml.etree.ElementTree as ElementTree


def main(path):
    passed = failed = skipped = 0
    for case in ElementTree.parse(path).getroot().iter("testcase"):
        status = case.get("status")
        if status == "run":
            passed += 1
        elif status == "disabled":
            skipped += 1
        elif status == "notrun":
            message = case.find("skipped")
            message = "" if message is None else message.get("message", "")
            if message.startswith("SKIP_"):
                skipped += 1
            else:
                failed += 1
        else:
            failed += 1
    print(passed, failed, skipped)


if __name__ == "__main__":
    main(sys.argv[1])
