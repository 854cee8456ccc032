"""The dashboards, told in short, and the JSON that Grafana reads. `tools/observe/main.py write` writes the files.

In expressions `$s` is for the services of Causeway (metrics whose names other programs have too), `$i` for the chosen processes.
"""

import json
from dataclasses import dataclass

SERVICES = 'service=~"causeway|edge|routing|key-directory|media-relay"'
INSTANCES = 'instance=~"$instance"'
DATASOURCE = {"type": "prometheus", "uid": "${datasource}"}
GREEN, YELLOW, RED = "green", "#EAB839", "red"


@dataclass
class Panel:
    """One panel. Of `queries` each is an expression and what its lines are called."""

    kind: str
    title: str
    about: str
    queries: list
    unit: str = "short"
    steps: tuple = ()
    width: int = 8
    height: int = 7
    stacked: bool = False
    # It shows nothing while nothing is wrong.
    quiet: bool = False


def stat(title, expression, about, unit="short", steps=(), width=4, quiet=False):
    """One number; `steps` are where it turns yellow or red."""
    return Panel("stat", title, about, [(expression, "")], unit, steps, width, 4, quiet=quiet)


def graph(title, queries, about, unit="short", width=8, stacked=False, quiet=False, steps=()):
    """Lines over time."""
    return Panel("timeseries", title, about, queries, unit, steps, width, 7, stacked, quiet)


def table(title, expression, about, width=12, quiet=True):
    """What is so now, a line each."""
    return Panel("table", title, about, [(expression, "")], width=width, height=7, quiet=quiet)


def quantile(q, metric, by="", where=""):
    """A quantile of a histogram, by these labels."""
    labels = ", ".join(["le", *by.split()])
    return f"histogram_quantile({q}, sum by ({labels}) (rate({metric}_bucket{{{where}}}[$__rate_interval])))"


def rate(metric, by="", where=""):
    """Events a second, by these labels."""
    return f"sum by ({', '.join(by.split())}) (rate({metric}{{{where}}}[$__rate_interval]))"


def share(metric, bad, where="", by=""):
    """What part of all events are such."""
    both = ",".join(part for part in (where, bad) if part)
    part, total = rate(metric, by, both), rate(metric, by, where)
    return f"{part} / {total}" if by else f"({part} or vector(0)) / ({total} > 0)"


FAILED = 'rpc_response_status_code=~"UNKNOWN|DEADLINE_EXCEEDED|INTERNAL|UNAVAILABLE|DATA_LOSS"'
RPC = "rpc_server_call_duration_seconds"
DB = "db_client_operation_duration_seconds"
HTTP = "http_client_request_duration_seconds"
FEW = ((1, YELLOW),)
BAD = ((1, RED),)

HEALTHY = [
    stat("Processes", "sum(causeway_build_info)", "Processes that answered Prometheus last."),
    stat(
        "Do not answer",
        "count(up{$s} == 0) or vector(0)",
        "Processes that Prometheus knows of and does not reach.",
        steps=BAD,
    ),
    stat(
        "Not ready",
        'sum(causeway_process_state{state!="ready"}) or vector(0)',
        "Processes that start, stop, or do without a part of theirs. A rolling restart shows here.",
        steps=FEW,
    ),
    stat(
        "Alerts",
        'count(ALERTS{alertname=~"Causeway.+", alertstate="firing"}) or vector(0)',
        "Alerts that fire. Each has a runbook: docs/runbooks.",
        steps=BAD,
    ),
    stat("Sessions", "sum(causeway_edge_sessions)", "Devices that are logged in."),
    stat("Messages", rate("causeway_edge_messages_total"), "Messages of clients that were answered, a second.", "mps"),
    table(
        "What fires",
        'max by (alertname, severity, service, instance) (ALERTS{alertname=~"Causeway.+", alertstate="firing"})',
        "Empty is good.",
    ),
    table(
        "What is degraded",
        "max by (service, instance, part) (causeway_process_parts_degraded) > 0",
        "Parts of /health that do not work; docs/operating.md, \"Health\", says what each means. Empty is good.",
    ),
    graph(
        "Processes by state",
        [("sum by (service, state) (causeway_process_state) > 0", "{{service}} {{state}}")],
        "How many processes are in which state.",
        stacked=True,
    ),
    graph(
        "Processor time",
        [("sum by (service, instance) (rate(process_cpu_time_seconds_total{$s}[$__rate_interval]))", "{{service}} {{instance}}")],
        "Cores that each process uses.",
    ),
    graph(
        "Versions",
        [("count by (service, version) (causeway_build_info)", "{{service}} {{version}}")],
        "What runs. Two versions for long are an upgrade that got stuck.",
        stacked=True,
    ),
]

LOSING = [
    stat(
        "Messages without an end",
        "sum(causeway_routing_messages_unaccounted)",
        "Accepted more than a minute ago, and neither at an end nor in the mailbox. Must be 0.",
        steps=BAD,
    ),
    stat(
        "Senders without an answer",
        share("causeway_edge_messages_total", 'outcome="unanswered"'),
        "Part of all messages whose session ended before there was an outcome. Their senders send them again.",
        "percentunit",
        ((0.001, YELLOW), (0.01, RED)),
        quiet=True,
    ),
    stat(
        "Writes that failed",
        rate("causeway_routing_mailbox_errors_total", where='reason!="closed"'),
        "Operations a second that the mailbox's store did not do.",
        "ops",
        ((0.001, YELLOW), (0.05, RED)),
    ),
    stat(
        "Routings that may not decide",
        "count(causeway_routing_lease_out_seconds > 5) or vector(0)",
        "The store has not renewed their leases.",
        steps=BAD,
    ),
    stat(
        "Waiting in the mailbox",
        "max(causeway_routing_mailbox_messages)",
        "Copies for devices that are away, of the whole store.",
    ),
    stat(
        "Expired",
        "sum(increase(causeway_routing_mailbox_expired_total[1d]))",
        "Copies that nobody fetched in time, in a day.",
    ),
    graph(
        "What senders were told",
        [(rate("causeway_edge_messages_total", "outcome"), "{{outcome}}")],
        "Messages a second, by outcome. `delivered` and `stored` are accepted; `dropped` is for what is not kept.",
        "mps",
        stacked=True,
    ),
    graph(
        "Accepted and settled",
        [
            (rate("causeway_routing_messages_accepted_total"), "accepted"),
            (rate("causeway_routing_messages_settled_total", "state"), "{{state}}"),
            (rate("causeway_edge_messages_again_total"), "submitted again"),
        ],
        "Each accepted message is settled: acknowledged, waiting in the mailbox, dropped, its recipient gone, or unanswered, so that its "
        "sender repeats it. What is submitted again had met a routing that was lost.",
        "mps",
    ),
    graph(
        "On their way to devices",
        [(rate("causeway_routing_deliveries_total", "path"), "{{path}}")],
        "Handed to sessions a second: at once, or out of the mailbox.",
        "mps",
    ),
]

HURTING = [
    graph(
        "Senders: until the outcome",
        [
            (quantile(0.5, "causeway_edge_message_duration_seconds", "class"), "{{class}} half"),
            (quantile(0.99, "causeway_edge_message_duration_seconds", "class"), "{{class}} 99 %"),
        ],
        "How long senders wait for the ack.",
        "s",
    ),
    graph(
        "Recipients: until they acknowledge",
        [
            (quantile(0.5, "causeway_routing_delivery_duration_seconds", "path"), "{{path}} half"),
            (quantile(0.99, "causeway_routing_delivery_duration_seconds", "path"), "{{path}} 99 %"),
        ],
        "From handing a message to a session to its device's acknowledgement; their networks are in it.",
        "s",
    ),
    graph(
        "Who cannot log in",
        [(rate("causeway_edge_login_failures_total", "reason"), "{{reason}}")],
        "Failed logins a second. `overloaded` is ours; `token-...` and `provider-...` are a provider's, or an attacker's.",
        "ops",
        stacked=True,
        quiet=True,
    ),
    graph(
        "Providers: requests that fail",
        [(
            f'sum by (server_address) (rate({HTTP}_count{{$s,error_type!=""}}[$__rate_interval]) or '
            f'rate({HTTP}_count{{$s,http_response_status_code=~"5.."}}[$__rate_interval])) / {rate(f"{HTTP}_count", "server_address", "$s")}',
            "{{server_address}}",
        )],
        "Part of our requests to each provider's hosts that got no answer, or a status of 500 or more: token keys, webhooks, media.",
        "percentunit",
        quiet=True,
    ),
    graph(
        "Providers: how slow",
        [(quantile(0.95, HTTP, "server_address", "$s"), "{{server_address}}")],
        "95 % of our requests to each provider's hosts are quicker.",
        "s",
        quiet=True,
    ),
    graph(
        "Clients: requests not answered well",
        [(rate("causeway_edge_requests_total", "request outcome", 'outcome=~"unavailable|rate-limited"'), "{{request}} {{outcome}}")],
        "Requests a second that were put off. Empty is good.",
        "ops",
        quiet=True,
    ),
    graph(
        "Services: calls that fail",
        [(rate(f"{RPC}_count", "service rpc_method", f"$s,{FAILED}"), "{{service}} {{rpc_method}}")],
        "Calls a second that a service could not answer. Empty is good.",
        "ops",
        quiet=True,
    ),
    graph(
        "Stores: how slow",
        [(quantile(0.99, DB, "service db_system_name", "$s"), "{{service}} {{db_system_name}}")],
        "99 % of waits for each store are shorter.",
        "s",
    ),
    graph(
        "Stores: what fails",
        [(rate(f"{DB}_count", "service db_system_name", '$s,error_type!=""'), "{{service}} {{db_system_name}}")],
        "Operations a second that failed. Empty is good.",
        "ops",
        quiet=True,
    ),
]

EDGE = {
    "Clients": [
        stat("Connections", "sum(causeway_edge_connections{$i})", "Open."),
        stat("Sessions", "sum(causeway_edge_sessions{$i})", "Logged in."),
        stat("Logins", rate("causeway_edge_logins_total", where="$i"), "A second.", "ops"),
        stat(
            "Logins that fail",
            "(sum(rate(causeway_edge_login_failures_total{$i}[$__rate_interval])) or vector(0)) / (sum(rate("
            'causeway_edge_handshakes_total{$i, result="completed"}[$__rate_interval])) > 0)',
            "Part of those with a handshake.",
            "percentunit",
            ((0.1, YELLOW), (0.3, RED)),
            quiet=True,
        ),
        stat("Messages", rate("causeway_edge_messages_total", where="$i"), "A second, from clients.", "mps"),
        stat("Deliveries", rate("causeway_edge_deliveries_total", where="$i"), "A second, to clients.", "mps"),
        graph("Connections and sessions", [
            ("causeway_edge_connections{$i}", "{{instance}} connections"),
            ("causeway_edge_sessions{$i}", "{{instance}} sessions"),
        ], "Of each edge; edge.max_connections is the bound."),
        graph("Handshakes", [(rate("causeway_edge_handshakes_total", "result", "$i"), "{{result}}")],
              "That are over, a second.", "ops", stacked=True),
        graph("Connections without a word", [
            (rate("causeway_edge_connections_dropped_total", "why", "$i"), "{{why}}"),
            (rate("causeway_edge_accept_errors_total", where="$i"), "not accepted"),
        ], "That ended before their handshake, a second. `no-place`: the edge, or a network, has as many as it may.", "ops"),
        graph("Refused handshakes", [(rate("causeway_edge_alerts_total", "code", "$i"), "alert {{code}}")],
              "By the code of the alert (docs/protocol.md).", "ops", quiet=True),
        graph("Failed logins", [(rate("causeway_edge_login_failures_total", "reason", "$i"), "{{reason}}")],
              "By what clients were told.", "ops", stacked=True, quiet=True),
        graph("Time to log in", [
            (quantile(0.5, "causeway_edge_login_duration_seconds", where="$i"), "half"),
            (quantile(0.99, "causeway_edge_login_duration_seconds", where="$i"), "99 %"),
        ], "From the connection to the login.", "s"),
        graph("Sessions that ended", [(rate("causeway_edge_sessions_ended_total", "reason", "$i"), "{{reason}}")],
              "A second, by reason.", "ops", stacked=True),
        graph("Requests", [(rate("causeway_edge_requests_total", "request outcome", "$i"), "{{request}} {{outcome}}")],
              "Answered, a second.", "ops"),
        graph("Time to answer requests", [(quantile(0.99, "causeway_edge_request_duration_seconds", "request", "$i"), "{{request}}")],
              "99 % are quicker.", "s"),
    ],
    "Messages": [
        graph("By outcome", [(rate("causeway_edge_messages_total", "class outcome", "$i"), "{{class}} {{outcome}}")],
              "What senders were told.", "mps", stacked=True),
        graph("Time to the outcome", [
            (quantile(0.5, "causeway_edge_message_duration_seconds", "outcome", "$i"), "{{outcome}} half"),
            (quantile(0.99, "causeway_edge_message_duration_seconds", "outcome", "$i"), "{{outcome}} 99 %"),
        ], "How long senders wait.", "s"),
        graph("Links to routing", [
            ("causeway_edge_links{$i}", "{{instance}} {{state}}"),
            (rate("causeway_edge_link_losses_total", "instance", "$i"), "{{instance}} lost a second"),
        ], "Each edge has one to each routing."),
        graph("Moved and submitted again", [
            (rate("causeway_edge_sessions_moved_total", where="$i"), "sessions moved"),
            (rate("causeway_edge_messages_again_total", where="$i"), "messages submitted again"),
        ], "A routing that stops or dies shows here, once.", "ops"),
        graph("Memory for what waits", [
            ("causeway_edge_pending_bytes{$i} / causeway_edge_pending_limit_bytes{$i}", "{{instance}} for outcomes"),
            ("causeway_edge_queued_bytes{$i} / causeway_edge_queued_limit_bytes{$i}", "{{instance}} for sockets"),
        ], "Part of the bound; when it is full, clients wait.", "percentunit", steps=((0.8, RED),)),
        graph("Certificate that clients see ends in", [("causeway_edge_certificate_remaining_seconds{$i}", "{{instance}}")],
              "All edges have the same.", "s"),
        graph("Who does not read", [(rate("causeway_edge_queues_full_total", "instance", "$i"), "{{instance}}")],
              "Sessions a second that were ended because they did not read.", "ops"),
    ],
}  # fmt: skip

ROUTING = {
    "Messages": [
        stat("Submitted", rate("causeway_routing_submissions_total", where="$i"), "A second.", "mps"),
        stat("Handed over", rate("causeway_routing_deliveries_total", where="$i"), "To sessions, a second.", "mps"),
        stat("Sessions", "sum(causeway_routing_sessions{$i})", "Attached."),
        stat("Accounts", "sum(causeway_routing_accounts_owned{$i})", "That these replicas own."),
        stat("Lease is out for", "max(causeway_routing_lease_out_seconds{$i})", "The longest; 0 is good.", "s",
             ((1, YELLOW), (5, RED))),
        stat("Without an answer", rate("causeway_routing_unanswered_total", where="$i"),
             "Messages a second of which nothing true could be said.", "mps", ((0.001, YELLOW), (1, RED))),
        graph("Submitted", [(rate("causeway_routing_submissions_total", "class", "$i"), "{{class}}")], "By class.", "mps",
              stacked=True),
        graph("Outcomes", [(rate("causeway_routing_outcomes_total", "outcome", "$i"), "{{outcome}}")], "What edges were told.",
              "mps", stacked=True),
        graph("Accepted, and not settled yet", [
            ("causeway_routing_messages_under_way{$i}", "{{instance}} under way"),
            ("causeway_routing_messages_unaccounted{$i}", "{{instance}} for more than a minute"),
        ], "The second must be 0."),
        graph("Settled", [(rate("causeway_routing_messages_settled_total", "state", "$i"), "{{state}}")],
              "`waiting`: in the mailbox. `unanswered`: its sender repeats it.", "mps", stacked=True),
        graph("Devices of a message", [
            (quantile(0.5, "causeway_routing_fan_out", where="$i"), "half"),
            (quantile(0.99, "causeway_routing_fan_out", where="$i"), "99 %"),
        ], "How many copies there are."),
        graph("Deliveries", [(rate("causeway_routing_deliveries_total", "path", "$i"), "{{path}}")],
              "At once, or out of the mailbox.", "mps", stacked=True),
        graph("Time to the device's acknowledgement", [
            (quantile(0.5, "causeway_routing_delivery_duration_seconds", "path", "$i"), "{{path}} half"),
            (quantile(0.99, "causeway_routing_delivery_duration_seconds", "path", "$i"), "{{path}} 99 %"),
        ], "Clients' networks are in it.", "s"),
        graph("Sessions told to end", [(rate("causeway_routing_endings_total", "reason", "$i"), "{{reason}}")], "A second.", "ops"),
    ],
    "Mailbox": [
        graph("Waiting", [("max(causeway_routing_mailbox_messages{$i})", "messages")],
              "Copies for devices that are away, of the whole store."),
        graph("Its size", [("max(causeway_routing_mailbox_size_bytes{$i})", "ciphertext")], "Of the whole store.", "bytes"),
        graph("The oldest", [("max(causeway_routing_mailbox_oldest_age_seconds{$i})", "age")],
              "At most routing.chat_expiry_ms.", "s"),
        graph("Time to commit", [
            (quantile(0.5, "causeway_routing_mailbox_commit_duration_seconds", "instance", "$i"), "{{instance}} half"),
            (quantile(0.99, "causeway_routing_mailbox_commit_duration_seconds", "instance", "$i"), "{{instance}} 99 %"),
        ], "Of what is written together.", "s"),
        graph("Written together", [(quantile(0.5, "causeway_routing_mailbox_commit_operations", "instance", "$i"), "{{instance}}")],
              "Operations in half of the commits at most."),
        graph("Waiting to be written", [("causeway_routing_mailbox_queue{$i}", "{{instance}}")],
              "Operations. Kubernetes scales by this."),
        graph("Not done", [(rate("causeway_routing_mailbox_errors_total", "reason", "$i"), "{{reason}}")],
              "Operations a second that the store did not do.", "ops"),
        graph("Leaving", [(rate("causeway_routing_mailbox_ended_total", "end", "$i"), "{{end}}")],
              "Copies a second. `expired`: nobody fetched them in time.", "mps", stacked=True),
        graph("Memory for messages", [("causeway_routing_memory_bytes{$i} / causeway_routing_memory_limit_bytes{$i}", "{{instance}}")],
              "Part of the bound; when it is full, edges wait.", "percentunit", steps=((0.8, RED),)),
    ],
    "Who owns what": [
        graph("Accounts", [("causeway_routing_accounts_owned{$i}", "{{instance}}")], "That each replica owns.", stacked=True),
        graph("Claims", [(rate("causeway_routing_claims_total", "result", "$i"), "{{result}}")],
              "A steady rate of `taken` means that edges do not agree on which routings are there.", "ops"),
        graph("Given up and moved", [
            (rate("causeway_routing_resets_total", "reason", "$i"), "account: {{reason}}"),
            (rate("causeway_routing_moves_total", where="$i"), "sessions moved"),
        ], "A replica that stops or dies shows here, once.", "ops"),
        graph("In memory", [
            ("causeway_routing_recipients{$i}", "{{instance}} recipients"),
            ("causeway_routing_links{$i}", "{{instance}} links"),
        ], "Recipients with an actor, and links from edges."),
        graph("Records of accounts", [(rate("causeway_routing_records_fetched_total", "result", "$i"), "{{result}}")],
              "Asked of key-directory, a second.", "ops"),
        graph("Low on prekeys", [(rate("causeway_routing_prekeys_low_total", where="$i"), "devices")], "Told so, a second.", "ops"),
    ],
    "Push": [
        graph("Webhooks", [(rate("causeway_routing_webhooks_total", "result", "$i"), "{{result}}")],
              "`failed`: an attempt that is made again. `no-room`: more devices are to be woken than routing.push_queue.", "ops", stacked=True),
        graph("Time until the provider answers", [
            (quantile(0.95, "causeway_routing_webhook_duration_seconds", "result", "$i"), "{{result}}"),
        ], "95 % are quicker.", "s", quiet=True),
        graph("To be woken", [("causeway_routing_push_queue{$i}", "{{instance}}")], "Devices that are to be woken, or have just been."),
    ],
}  # fmt: skip

DIRECTORY = {
    "Calls": [
        stat("Calls", rate("causeway_key_directory_calls_total", where="$i"), "A second.", "ops"),
        stat("That failed", share("causeway_key_directory_calls_total", 'outcome="failed"', "$i"), "Part of all.", "percentunit",
             ((0.001, YELLOW), (0.05, RED)), quiet=True),
        stat("Routings that follow", "sum(causeway_key_directory_followers{$i})", "The change of records. Each has one of the replicas."),
        stat("Claims", rate("causeway_key_directory_calls_total", where='$i, method="Claim"'),
             "Of prekeys, a second.", "ops", quiet=True),
        stat("Without one-time keys", share("causeway_key_directory_prekeys_taken_total", 'use="fallback"', "$i"),
             "Part of the claimed keys that were fallbacks.", "percentunit", ((0.05, YELLOW), (0.2, RED)), quiet=True),
        stat("Refused by a rate", rate("causeway_key_directory_rate_limited_total", where="$i"), "Calls a second.", "ops"),
        graph("By method", [(rate("causeway_key_directory_calls_total", "method", "$i"), "{{method}}")], "A second.", "ops",
              stacked=True),
        graph("Refused and failed", [
            (rate("causeway_key_directory_calls_total", "method outcome", '$i, outcome!="answered"'), "{{method}} {{outcome}}"),
        ], "`refused` is the caller's fault, `failed` ours or the store's.", "ops", quiet=True),
        graph("Time to answer", [(quantile(0.99, RPC, "rpc_method", "$i"), "{{rpc_method}}")], "99 % are quicker.", "s"),
        graph("Prekeys", [(rate("causeway_key_directory_prekeys_taken_total", "kind use", "$i"), "{{kind}} {{use}}")],
              "In claimed bundles, a second.", "ops", quiet=True),
        graph("Refused by a rate", [(rate("causeway_key_directory_rate_limited_total", "method", "$i"), "{{method}}")],
              "By method, a second.", "ops"),
        graph("Providers' token keys", [(rate("causeway_key_directory_key_fetches_total", "outcome", "$i"), "{{outcome}}")],
              "Fetches a second.", "ops"),
        graph("Followers", [
            ("causeway_key_directory_followers{$i}", "{{instance}}"),
            (rate("causeway_key_directory_followers_cut_total", "instance", "$i"), "{{instance}} cut off a second"),
        ], "Those that fell behind were cut off and come back."),
    ],
}  # fmt: skip

MEDIA = {
    "Transfers": [
        stat("Under way", "sum(causeway_media_transfers_active{$i})", "Transfers."),
        stat("Bytes", rate("causeway_media_transferred_bytes_total", where="$i"), "A second.", "Bps"),
        stat("Not complete", share("causeway_media_transfers_total", 'outcome!="complete"', "$i"), "Part of all.", "percentunit",
             ((0.05, YELLOW), (0.3, RED)), quiet=True),
        stat("No room", rate("causeway_media_connections_refused_total", where="$i"), "Connections a second.", "ops",
             ((0.001, YELLOW), (1, RED))),
        stat("Tickets", rate("causeway_media_tickets_total", where="$i"), "Issued, a second.", "ops"),
        stat("Refused tickets", f'{rate("causeway_media_tickets_refused_total", where="$i")} or vector(0)', "A second.", "ops"),
        graph("By outcome", [(rate("causeway_media_transfers_total", "direction outcome", "$i"), "{{direction}} {{outcome}}")],
              "Transfers that are over, a second.", "ops", stacked=True),
        graph("Bytes", [(rate("causeway_media_transferred_bytes_total", "direction", "$i"), "{{direction}}")], "A second.", "Bps",
              stacked=True),
        graph("Time of a transfer", [
            (quantile(0.5, "causeway_media_transfer_duration_seconds", "direction", "$i"), "{{direction}} half"),
            (quantile(0.99, "causeway_media_transfer_duration_seconds", "direction", "$i"), "{{direction}} 99 %"),
        ], "Clients' networks are in it.", "s"),
        graph("Under way", [("sum by (direction) (causeway_media_transfers_active{$i})", "{{direction}}")], "Transfers.", stacked=True),
        graph("Tickets", [
            (rate("causeway_media_tickets_total", "direction", "$i"), "{{direction}}"),
            (rate("causeway_media_tickets_refused_total", "reason", "$i"), "refused: {{reason}}"),
        ], "Issued, and refused when they were shown.", "ops", quiet=True),
        graph("No room for connections", [(rate("causeway_media_connections_refused_total", "reason", "$i"), "{{reason}}")],
              "`total`: for anybody. `network`: for one network.", "ops"),
        graph("Erased", [(rate("causeway_media_swept_total", "what", "$i"), "{{what}}")], "Objects a second.", "ops"),
    ],
}  # fmt: skip

PROCESS = [
    graph("Processor time", [("sum by (instance) (rate(process_cpu_time_seconds_total{$i}[$__rate_interval]))", "{{instance}}")],
          "Cores.", width=6),
    graph("Memory", [("process_memory_usage_bytes{$i}", "{{instance}}")], "Resident.", "bytes", width=6),
    graph("Descriptors", [("process_unix_file_descriptor_count{$i} / causeway_process_file_descriptors_limit{$i}", "{{instance}}")],
          "Part of those that may be open.", "percentunit", width=6, steps=((0.8, RED),)),
    graph("Tasks", [
        ("causeway_process_tasks{$i}", "{{instance}}"),
        ("causeway_process_tasks_queued{$i}", "{{instance}} waiting for a thread"),
    ], "Of the runtime.", width=6),
    graph("Up for", [("process_uptime_seconds{$i}", "{{instance}}")], "A restart is a fall.", "s", width=6),
    graph("State", [("sum by (instance, state) (causeway_process_state{$i}) > 0", "{{instance}} {{state}}")], "Of each process.",
          width=6, stacked=True),
    graph("Time of calls", [(quantile(0.99, RPC, "rpc_method", "$i"), "{{rpc_method}}")],
          "That this service answers; 99 % are quicker.", "s", width=6, quiet=True),
    graph("Calls by status", [(rate(f"{RPC}_count", "rpc_response_status_code", "$i"), "{{rpc_response_status_code}}")],
          "That this service answers, a second.", "ops", width=6, stacked=True, quiet=True),
]  # fmt: skip

OUTSIDE = [
    graph("Time of stores", [
        (quantile(0.99, DB, "db_system_name db_operation_name", "$i"), "{{db_system_name}} {{db_operation_name}}"),
    ], "99 % of waits are shorter.", "s", width=6),
    graph("Stores: what fails", [(rate(f"{DB}_count", "db_system_name", '$i, error_type!=""'), "{{db_system_name}}")],
          "Operations a second.", "ops", width=6, quiet=True),
    graph("Connections to PostgreSQL", [
        ("sum by (instance, db_client_connection_state) (db_client_connection_count{$i})", "{{instance}} {{db_client_connection_state}}"),
        ("db_client_connection_pending_requests{$i}", "{{instance}} wait for one"),
    ], "Of the pool.", width=6, quiet=True),
    graph("Requests to providers", [
        (rate(f"{HTTP}_count", "server_address http_response_status_code error_type", "$i"),
         "{{server_address}} {{http_response_status_code}}{{error_type}}"),
    ], "A second.", "ops", width=6, quiet=True),
]  # fmt: skip

TLS = [
    graph("Certificate ends in", [("causeway_tls_certificate_remaining_seconds{$i}", "{{instance}}")], "With server.tls.", "s",
          quiet=True, steps=()),
    graph("Handshakes that failed", [(rate("causeway_tls_handshakes_failed_total", "instance side", "$i"), "{{instance}} {{side}}")],
          "Between services, a second.", "ops", quiet=True),
    graph("Refused calls and new files", [
        (rate("causeway_tls_calls_denied_total", "role", "$i"), "refused: {{role}}"),
        (rate("causeway_tls_reloads_total", "result", "$i"), "files: {{result}}"),
    ], "A role may not make each call; certificate files that were there anew.", "ops", quiet=True),
]  # fmt: skip

# File, title, the metric whose processes can be chosen, rows.
DASHBOARDS = {
    "overview": ("Overview", None, {"Is it healthy?": HEALTHY, "Is it losing?": LOSING, "Who is hurting?": HURTING}),
    "edge": ("Edge", "causeway_edge_connections", {**EDGE, "Process": PROCESS, "Between services": TLS}),
    "routing": ("Routing", "causeway_routing_links", {**ROUTING, "Process": PROCESS, "Stores and providers": OUTSIDE, "Between services": TLS}),
    "key-directory": (
        "Key-directory",
        "causeway_key_directory_followers",
        {**DIRECTORY, "Process": PROCESS, "Stores and providers": OUTSIDE, "Between services": TLS},
    ),
    "media-relay": (
        "Media-relay",
        "causeway_media_transfers_active",
        {**MEDIA, "Process": PROCESS, "Stores and providers": OUTSIDE[-1:], "Between services": TLS},
    ),
}


def expanded(expression):
    """As Grafana reads it."""
    return expression.replace("{$i}", f"{{{INSTANCES}}}").replace("$i,", f"{INSTANCES},").replace("$s", SERVICES).replace("{}", "")


def queries(name):
    """Yields panel, and expression as Grafana reads it, of one dashboard."""
    for panels in DASHBOARDS[name][2].values():
        for panel in panels:
            for expression, _legend in panel.queries:
                yield panel, expanded(expression)


def render(name):
    """The text of one dashboard's file."""
    title, chosen, rows = DASHBOARDS[name]
    made, top = [], 0
    for row, panels in rows.items():
        made.append({"type": "row", "title": row, "collapsed": False, "gridPos": {"h": 1, "w": 24, "x": 0, "y": top}, "panels": []})
        top, left, height = top + 1, 0, 0
        for panel in panels:
            if left + panel.width > 24 or (left and panel.height != height):
                top, left = top + height, 0
            made.append(_panel(panel, {"h": panel.height, "w": panel.width, "x": left, "y": top}))
            left, height = left + panel.width, panel.height
        top += height
    for number, panel in enumerate(made, 1):
        panel["id"] = number
    variables = [{"name": "datasource", "label": "Prometheus", "type": "datasource", "query": "prometheus"}]
    if chosen:
        query = f"label_values({chosen}, instance)"
        variables.append({
            "name": "instance", "label": "Process", "type": "query", "datasource": DATASOURCE,
            "definition": query, "query": {"query": query, "refId": "instances"},
            # Without a value for all: that would be the processes of other services as well.
            "refresh": 2, "sort": 1, "multi": True, "includeAll": True,
            "current": {"text": "All", "value": "$__all"},
        })  # fmt: skip
    link = {"type": "dashboards", "title": "Causeway", "tags": ["causeway"], "asDropdown": False, "includeVars": False, "keepTime": True}
    tree = {
        "uid": f"causeway-{name}",
        "title": f"Causeway: {title}",
        "description": "Written by tools/observe/main.py; change it there.",
        "tags": ["causeway"],
        "editable": False,
        "schemaVersion": 41,
        "version": 1,
        "refresh": "15s",
        "time": {"from": "now-1h", "to": "now"},
        "timezone": "utc",
        "graphTooltip": 1,
        "links": [link],
        "templating": {"list": variables},
        "annotations": {"list": []},
        "panels": made,
    }
    return json.dumps(tree, indent=1, ensure_ascii=False) + "\n"


def _panel(panel, place):
    now = panel.kind != "timeseries"
    targets = []
    for letter, (expression, legend) in zip("ABCDEF", panel.queries, strict=False):
        target = {"refId": letter, "datasource": DATASOURCE, "expr": expanded(expression), "legendFormat": legend or "__auto"}
        target |= {"instant": now, "range": not now, "format": "table" if panel.kind == "table" else "time_series"}
        targets.append(target)
    steps = [{"color": GREEN, "value": None}, *({"color": color, "value": value} for value, color in panel.steps)]
    defaults = {"unit": panel.unit, "thresholds": {"mode": "absolute", "steps": steps}}
    made = {"type": panel.kind, "title": panel.title, "description": panel.about, "datasource": DATASOURCE, "gridPos": place}
    made |= {"targets": targets, "fieldConfig": {"defaults": defaults, "overrides": []}}
    if panel.kind == "stat":
        reduce = {"calcs": ["lastNotNull"], "fields": "", "values": False}
        made["options"] = {"reduceOptions": reduce, "colorMode": "value" if panel.steps else "none", "graphMode": "none"}
        if not panel.steps:
            defaults["color"] = {"mode": "fixed", "fixedColor": "text"}
        defaults["noValue"] = "–"
    elif panel.kind == "table":
        made["transformations"] = [{"id": "organize", "options": {"excludeByName": {"Time": True, "Value": True}}}]
        made["options"] = {"showHeader": True}
    else:
        custom = {"fillOpacity": 25 if panel.stacked else 0, "lineWidth": 1, "showPoints": "never"}
        custom["stacking"] = {"mode": "normal" if panel.stacked else "none"}
        custom["thresholdsStyle"] = {"mode": "dashed" if panel.steps else "off"}
        defaults |= {"custom": custom, "min": 0}
        made["options"] = {"legend": {"displayMode": "list", "placement": "bottom"}, "tooltip": {"mode": "multi", "sort": "desc"}}
    return made
