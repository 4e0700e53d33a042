#!/usr/bin/env python3
"""Judges two answers of `eagre status --json`, the second later: every promised field, of sensible value.

usage: check_status.py FIRST SECOND
"""
import json
import sys

NODE_NUMBERS = ["number", "vcpus", "resident_bytes", "promised_bytes", "pages_owned", "pages_shared",
                "stall_p50_ns", "stall_p99_ns", "messages", "bytes_in", "bytes_out"]
wrong = []


def check(what, condition):
    if not condition:
        wrong.append(what)


def check_node(i, node):
    where = f"node {i}"
    check(f"{where}: {node.get('error')}", "error" not in node)
    for key in NODE_NUMBERS:
        check(f"{where}: {key} is {node.get(key)!r}", isinstance(node.get(key), int) and node[key] >= 0)
    for key in ("name", "address", "engine"):
        check(f"{where}: {key} is {node.get(key)!r}", isinstance(node.get(key), str) and node[key])
    stalls = node.get("stalls", {})
    for kind in ("zero", "read", "write", "upgrade"):
        check(f"{where}: stalls.{kind} is {stalls.get(kind)!r}", isinstance(stalls.get(kind), int))
    if not wrong:
        check(f"{where}: resident is more than promised",
              node["resident_bytes"] <= node["promised_bytes"] * 1.02)
        check(f"{where}: resident is not what is owned and shared",
              node["resident_bytes"] == 4096 * (node["pages_owned"] + node["pages_shared"]))
        check(f"{where}: p50 {node['stall_p50_ns']} is above p99 {node['stall_p99_ns']}",
              node["stall_p50_ns"] <= node["stall_p99_ns"])
        check(f"{where}: number is {node['number']}", node["number"] == i)


def check_pod(pod):
    for key in ("pod", "state", "engine"):
        check(f"{key} is {pod.get(key)!r}", isinstance(pod.get(key), str) and pod[key])
    check("state is not running", pod.get("state") == "running")
    for i, node in enumerate(pod.get("nodes", [])):
        check_node(i, node)
    names = [node.get("name") for node in pod.get("nodes", [])]
    for i, vcpu in enumerate(pod.get("vcpus", [])):
        check(f"vCPU {i}: number is {vcpu.get('number')!r}", vcpu.get("number") == i)
        check(f"vCPU {i}: node is {vcpu.get('node')!r}", vcpu.get("node") in names)
        check(f"vCPU {i}: state is {vcpu.get('state')!r}", isinstance(vcpu.get("state"), str))
        check(f"vCPU {i}: stalls is {vcpu.get('stalls')!r}", isinstance(vcpu.get("stalls"), int))
        check(f"vCPU {i}: rekicks is {vcpu.get('rekicks')!r}", vcpu.get("rekicks") == 0)
    check("vCPUs are not the nodes' sum",
          len(pod["vcpus"]) == sum(node.get("vcpus", 0) for node in pod["nodes"]))


def stalls(pod):
    return sum(sum(node["stalls"].values()) for node in pod["nodes"])


first, second = (json.load(open(path)) for path in sys.argv[1:3])
check_pod(first)
check_pod(second)
if not wrong:
    check(f"stalls do not grow: {stalls(first)}, {stalls(second)}", stalls(second) > stalls(first))
    check("messages do not grow", second["nodes"][1]["messages"] > first["nodes"][1]["messages"])
    check("uptime does not grow", second["uptime_s"] >= first["uptime_s"])
for line in wrong:
    print(line)
sys.exit(bool(wrong))
