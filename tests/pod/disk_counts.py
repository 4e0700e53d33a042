#!/usr/bin/env python3
"""What 4 KiB requests to disks of other nodes cost, by two `eagre status --json`, before and after.

    disk_counts.py BEFORE AFTER

Prints it for a request; status 1 if there are too many stalls or messages, or no requests at all.
"""
import json
import sys


def counts(path):
    with open(path, encoding='utf-8') as file:
        nodes = json.load(file)['nodes']
    disks = [disk for node in nodes for disk in node['disks']]
    return {
        'requests': sum(disk['requests'] for disk in disks),
        'served': sum(disk['served']['requests'] for disk in disks),
        'stalls': sum(sum(node['stalls'].values()) for node in nodes),
        'messages': sum(node['io']['messages_out'] for node in nodes),
        'calls': sum(node['io']['sends'] + node['io']['receives'] for node in nodes),
        'turns': sum(node['io']['turns'] for node in nodes),
    }


def main():
    before, after = counts(sys.argv[1]), counts(sys.argv[2])
    cost = {key: after[key] - before[key] for key in after}
    requests = max(cost.pop('requests'), 1)
    print(f'{requests} in all;',
          ', '.join(f'{count / requests:.2f} {name}' for name, count in cost.items()), 'each')
    # Each is asked and answered, by two nodes; a flush follows a write now and then. Either word takes a call to send it, and
    # one or two to receive it (a page comes in pieces on a busy machine), behind which one may find nothing more.
    ok = requests >= 1000 and cost['served'] == requests and cost['stalls'] <= 0.1 * requests
    return 0 if ok and cost['messages'] <= 2.1 * requests and cost['calls'] <= 8 * requests else 1


sys.exit(main())
