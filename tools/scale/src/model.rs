//! What so many users need.

use crate::figures::{Costs, Plan, Prices, Users};
use crate::table::{number, table};

const DAY_S: f64 = 86_400.0;
const MONTH_DAYS: f64 = 30.4;
const KIB: f64 = 1_024.0;
const GIB: f64 = 1_024.0 * 1_024.0 * 1_024.0;
const GB: f64 = 1e9;

/// Everything that is put in.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Inputs {
    pub(crate) costs: Costs,
    pub(crate) users: Users,
    pub(crate) plan: Plan,
    pub(crate) prices: Prices,
    /// Messages that wait for a user in the mean, at the end of the year that [`crate::mailbox`] simulates.
    pub(crate) waiting: f64,
}

/// The same for a number of users; rates are those of the busiest second.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Traffic {
    pub(crate) sessions: f64,
    pub(crate) messages_s: f64,
    pub(crate) stored_s: f64,
    pub(crate) logins_s: f64,
    pub(crate) claims_s: f64,
    pub(crate) changes_s: f64,
    in_s: f64,
    out_s: f64,
    media_day: f64,
    messages_day: f64,
    logins_day: f64,
}

/// Machines of one kind: how many for each reason, of which the greatest counts.
#[derive(Debug, Clone)]
pub(crate) struct Machines {
    reasons: Vec<(&'static str, f64)>,
    least: f64,
}

impl Machines {
    /// By which it is so many.
    pub(crate) fn reason(&self) -> &'static str {
        self.reasons.iter().max_by(|one, other| one.1.total_cmp(&other.1)).map_or("", |(reason, _)| reason)
    }

    /// Without any to spare.
    fn needed(&self) -> f64 {
        self.reasons.iter().fold(0.0_f64, |most, (_, machines)| most.max(*machines))
    }

    pub(crate) fn count(&self) -> f64 {
        self.needed().max(1.0).ceil().max(self.least)
    }

    /// So that the others suffice when a zone fails.
    fn over_zones(mut self, zones: f64) -> Self {
        for (_, machines) in &mut self.reasons {
            *machines *= zones / (zones - 1.0);
        }
        self.least = self.least.max(zones);
        self
    }
}

/// What a number of users needs.
#[derive(Debug, Clone)]
pub(crate) struct Need {
    users: f64,
    pub(crate) traffic: Traffic,
    pub(crate) edges: Machines,
    pub(crate) routings: Machines,
    pub(crate) directories: Machines,
    pub(crate) relays: Machines,
    /// Primaries; each has two standbys.
    pub(crate) mailboxes: Machines,
    pub(crate) directory_stores: Machines,
    /// Primaries; each has a replica.
    pub(crate) redis: Machines,
    /// Deployments, each with its own directory and mailbox.
    pub(crate) cells: Machines,
    /// Primaries of Redis if all edges let in as many as they may, after a failure.
    redis_in_storm: f64,
    /// Processors, without headroom.
    work: [f64; 5],
    waiting_bytes: f64,
    directory_bytes: f64,
    blob_bytes: f64,
    bills: Vec<(&'static str, f64)>,
}

impl Inputs {
    fn traffic(&self, users: f64) -> Traffic {
        let Users { devices, written, peak, .. } = self.users;
        let of = &self.users;
        let all_devices = users * devices;
        let messages_day = users * written * (of.fan_out * (1.0 + of.receipts) + of.copies);
        let messages_s = messages_day / DAY_S * peak;
        let logins_day = all_devices * of.logins;
        let sessions = all_devices * of.online;
        let logins_s = logins_day / DAY_S * peak;
        Traffic {
            sessions,
            messages_s,
            stored_s: messages_s * (1.0 - of.live * of.in_window),
            logins_s,
            claims_s: users * of.claims / DAY_S * peak,
            changes_s: users * of.changes / DAY_S * peak,
            in_s: messages_s * self.costs.in_bytes,
            out_s: messages_s * devices * self.costs.out_bytes
                + logins_s * self.costs.login_bytes
                + sessions * self.costs.ping_bytes / 30.0,
            media_day: users * written * of.media,
            messages_day,
            logins_day,
        }
    }

    /// What `users` users need.
    pub(crate) fn need(&self, users: f64) -> Need {
        let (costs, of, plan) = (&self.costs, &self.users, &self.plan);
        let traffic = self.traffic(users);
        let processors = |us_a_second: f64| us_a_second / 1e6 / plan.load / plan.node_cpus;
        let memory = |kib: f64| kib * KIB / (plan.node_gib * GIB * plan.node_memory);
        let machines = |least: f64, reasons: &[(&'static str, f64)]| Machines { reasons: reasons.to_vec(), least };

        let edge_us =
            traffic.messages_s * costs.edge_us + traffic.logins_s * costs.login_us + traffic.sessions * costs.idle_us;
        let edges = machines(
            2.0,
            &[
                ("processors", processors(edge_us)),
                ("memory of sessions", memory(traffic.sessions * costs.session_kib)),
                ("sessions an edge", traffic.sessions / plan.edge_sessions),
            ],
        );
        let accounts = users * of.in_memory;
        let routings = machines(
            2.0,
            &[
                ("processors", processors(traffic.messages_s * costs.routing_us)),
                ("memory of recipients", memory(accounts * costs.recipient_kib)),
                ("recipients a routing", accounts / plan.routing_accounts),
            ],
        );
        let directory_us = traffic.messages_s * costs.directory_us + traffic.claims_s * costs.claim_us;
        let directories = machines(2.0, &[("processors", processors(directory_us))]);
        let media_bytes_day = traffic.media_day * of.media_bytes;
        let media_s = media_bytes_day * (1.0 + of.downloads) / DAY_S * of.peak;
        let relays = machines(2.0, &[("network", media_s / plan.relay_bytes_per_s)]);

        let waiting_bytes = users * self.waiting * costs.row_bytes;
        let directory_bytes = users * of.devices * costs.device_bytes;
        let store = |per_s: f64| per_s * plan.store_scale * plan.load;
        let mailboxes = machines(
            1.0,
            &[
                ("messages written", traffic.stored_s / store(costs.store_per_s)),
                ("messages that wait", waiting_bytes / plan.store_bytes),
            ],
        );
        let changes = traffic.changes_s / (costs.changes_per_s * plan.load);
        let directory_stores = machines(
            1.0,
            &[
                ("changes, one after the other", changes),
                ("prekey claims", traffic.claims_s / store(costs.claims_per_s)),
                ("prekeys stored", directory_bytes / plan.store_bytes),
            ],
        );
        let tokens_bytes = traffic.logins_s * 3_600.0 * of.token_hours * 250.0;
        let presence_bytes = users * of.in_memory * (200.0 + 60.0 * of.devices);
        let redis_ops = traffic.logins_s * plan.login_commands + routings.count() * 4.0;
        let redis = machines(
            1.0,
            &[
                ("commands", redis_ops / plan.redis_ops_per_s),
                ("memory", (tokens_bytes + presence_bytes) / plan.redis_bytes),
            ],
        );
        let cells = machines(
            1.0,
            &[
                ("messages written", mailboxes.needed()),
                ("directory", directory_stores.needed()),
                ("routings", routings.needed() / plan.cell_routings),
            ],
        );

        let zones = plan.zones;
        let edges = edges.over_zones(zones);
        let let_in = edges.count() * plan.edge_logins_s;
        let mut need = Need {
            redis_in_storm: let_in * plan.login_commands / plan.redis_ops_per_s,
            work: [
                traffic.messages_s * (costs.edge_us + costs.routing_us + costs.directory_us) / 1e6,
                traffic.logins_s * costs.login_us / 1e6,
                traffic.sessions * costs.idle_us / 1e6,
                traffic.claims_s * costs.claim_us / 1e6,
                traffic.stored_s * costs.store_us / 1e6,
            ],
            users,
            traffic,
            edges,
            routings: routings.over_zones(zones),
            directories: directories.over_zones(zones),
            relays: relays.over_zones(zones),
            mailboxes,
            directory_stores,
            redis,
            cells,
            waiting_bytes,
            directory_bytes,
            blob_bytes: media_bytes_day * of.media_days,
            bills: Vec::new(),
        };
        need.bills = self.bills(&need);
        need
    }

    /// A month.
    fn bills(&self, need: &Need) -> Vec<(&'static str, f64)> {
        let (prices, plan, of, costs) = (&self.prices, &self.plan, &self.users, &self.costs);
        let traffic = &need.traffic;
        let hours = MONTH_DAYS * 24.0;
        let services = [&need.edges, &need.routings, &need.directories, &need.relays];
        let services: f64 = services.iter().map(|machines| machines.count()).sum();
        // A primary and two standbys of 16 processors each; a Redis and its replica are a service's machine each.
        let large = 16.0 / plan.node_cpus;
        let stores = (need.mailboxes.count() + need.directory_stores.count()) * 3.0 * large + need.redis.count() * 2.0;
        let volumes = (need.waiting_bytes + need.directory_bytes) * 3.0 * 1.5 / GB;
        let month = |a_day: f64| a_day * MONTH_DAYS;
        let out = month(traffic.messages_day * of.devices * costs.out_bytes + traffic.logins_day * costs.login_bytes)
            + traffic.sessions / of.peak * costs.ping_bytes / 30.0 * hours * 3_600.0;
        let media_out = month(traffic.media_day * of.media_bytes * of.downloads);
        // Edge to routing and back, in each of two of three cases to another zone; the log goes to both standbys.
        let elsewhere = (plan.zones - 1.0) / plan.zones;
        let stored_share = traffic.stored_s / traffic.messages_s;
        let between = month(traffic.messages_day)
            * ((costs.in_bytes + costs.out_bytes) * elsewhere + stored_share * costs.wal_bytes * 2.0);
        let units =
            (traffic.sessions / 1e5).max(traffic.logins_s / 800.0).max((traffic.in_s + traffic.out_s) * 3.6e3 / GB);
        let egress = self.egress((out + media_out) / GB);
        let share = media_out / (out + media_out);
        vec![
            ("machines of services", services * prices.node_hour * hours),
            ("machines of PostgreSQL and Redis", stores * prices.node_hour * hours),
            ("volumes", volumes * prices.volume_gb),
            ("load balancers", units * prices.balancer_unit_hour * hours),
            ("between zones", between / GB * prices.zone_gb),
            ("to the internet: messages", egress * (1.0 - share)),
            ("to the internet: media", egress * share),
            (
                "blobs",
                need.blob_bytes / GB * prices.blob_gb
                    + month(traffic.media_day) * (prices.blob_put + prices.blob_get * of.downloads),
            ),
        ]
    }

    fn egress(&self, gb: f64) -> f64 {
        let prices = &self.prices;
        let steps = [
            (0.0, 10_000.0, prices.egress_first),
            (10_000.0, 50_000.0, prices.egress_second),
            (50_000.0, 150_000.0, prices.egress_third),
            (150_000.0, f64::INFINITY, prices.egress_rest),
        ];
        steps.iter().map(|(from, to, price)| (gb.min(*to) - from).max(0.0) * price).sum()
    }

    /// All tables, for 1 M, 100 M and 1 B users.
    pub(crate) fn report(&self) -> String {
        let needs = [1e6, 1e8, 1e9].map(|users| self.need(users));
        let mut out = String::from("### What comes in, in the busiest second\n\n");
        out += &columns(
            &needs,
            &[
                ("sessions", &|need: &Need| number(need.traffic.sessions)),
                ("messages a second", &|need: &Need| number(need.traffic.messages_s)),
                ("of which written to the mailbox", &|need: &Need| number(need.traffic.stored_s)),
                ("logins a second", &|need: &Need| number(need.traffic.logins_s)),
                ("prekey claims a second", &|need: &Need| number(need.traffic.claims_s)),
                ("changes of accounts a second", &|need: &Need| number(need.traffic.changes_s)),
                ("to clients without media, Gbit/s", &|need: &Need| number(need.traffic.out_s * 8.0 / GB)),
                ("media uploaded a day, TB", &|need: &Need| number(need.blob_bytes / self.users.media_days / 1e12)),
            ],
        );
        out += "\n### Processors that are busy, without headroom\n\n";
        out += &columns(
            &needs,
            &[
                ("messages, all services", &|need: &Need| number(need.work[0])),
                ("logins", &|need: &Need| number(need.work[1])),
                ("sessions that do nothing", &|need: &Need| number(need.work[2])),
                ("prekey claims", &|need: &Need| number(need.work[3])),
                ("PostgreSQL, messages written", &|need: &Need| number(need.work[4])),
            ],
        );
        out += "\n### Machines, and what says how many\n\n";
        out += &columns(
            &needs,
            &[
                ("edges", &|need: &Need| said(&need.edges)),
                ("routings", &|need: &Need| said(&need.routings)),
                ("key-directories", &|need: &Need| said(&need.directories)),
                ("media-relays", &|need: &Need| said(&need.relays)),
                ("PostgreSQL of mailboxes, primaries", &|need: &Need| said(&need.mailboxes)),
                ("PostgreSQL of directories, primaries", &|need: &Need| said(&need.directory_stores)),
                ("Redis, primaries", &|need: &Need| said(&need.redis)),
                ("Redis, if all edges let in as many logins as they may", &|need: &Need| {
                    number(need.redis_in_storm.ceil())
                }),
                ("messages that wait, TB", &|need: &Need| number(need.waiting_bytes / 1e12)),
                ("directory, TB", &|need: &Need| number(need.directory_bytes / 1e12)),
                ("blobs, TB", &|need: &Need| number(need.blob_bytes / 1e12)),
                ("streams of edges to routings, if it were one deployment", &|need: &Need| {
                    number(need.edges.count() * need.routings.count())
                }),
                ("**deployments (cells) it takes as it is built**", &|need: &Need| said(&need.cells)),
            ],
        );
        out += "\n### Money, US dollars a month\n\n";
        let mut rows: Vec<Vec<String>> = Vec::new();
        for (index, (name, _)) in needs[0].bills.iter().enumerate() {
            let bill = |need: &Need| need.bills.get(index).map_or(0.0, |bill| bill.1);
            rows.push(std::iter::once((*name).to_owned()).chain(needs.iter().map(|need| money(bill(need)))).collect());
        }
        let total = |need: &Need| need.bills.iter().map(|bill| bill.1).sum::<f64>();
        rows.push(std::iter::once("**all**".to_owned()).chain(needs.iter().map(|need| money(total(need)))).collect());
        let without = |need: &Need| {
            need.bills.iter().filter(|(name, _)| !name.contains("media") && *name != "blobs").map(|bill| bill.1).sum()
        };
        let a_user =
            |of: &dyn Fn(&Need) -> f64| needs.iter().map(|need| cents(of(need) / need.users)).collect::<Vec<_>>();
        rows.push(std::iter::once("cents a user".to_owned()).chain(a_user(&total)).collect());
        rows.push(std::iter::once("cents a user, without media".to_owned()).chain(a_user(&without)).collect());
        out += &table(&["", "1 M users", "100 M users", "1 B users"], true, &rows);
        out += "\n### What helps how much, at 100 M users\n\n";
        out + &self.levers()
    }

    /// What one change alone would give.
    fn levers(&self) -> String {
        let change = |name: &str, change: &dyn Fn(&mut Inputs)| {
            let mut other = *self;
            change(&mut other);
            let need = other.need(1e8);
            let all: f64 = need.bills.iter().map(|bill| bill.1).sum();
            [name.to_owned(), number(need.edges.count()), number(need.routings.count()), number(need.mailboxes.count())]
                .into_iter()
                .chain([number(need.directory_stores.count()), number(need.cells.count()), money(all)])
                .collect::<Vec<String>>()
        };
        let rows = [
            change("as above", &|_| {}),
            change("6 KiB an idle session (the goal)", &|to| to.costs.session_kib = 6.0),
            change("the same, and pings each minute", &|to| {
                to.costs.session_kib = 6.0;
                to.costs.idle_us /= 2.0;
            }),
            change("12 us a message in all (the goal of one process)", &|to| {
                to.costs.edge_us = 5.0;
                to.costs.routing_us = 7.0;
            }),
            change("`ack_window_ms` that most devices meet: 9 of 10 in time", &|to| to.users.in_window = 0.9),
            change("devices that are gone are removed: a tenth of what waits", &|to| to.waiting /= 10.0),
            change("20 Kyber one-time keys a device instead of 100", &|to| to.costs.device_bytes = 60_000.0),
            change("changes of accounts in many logs: 10 times as many", &|to| to.costs.changes_per_s *= 10.0),
            change("all of these", &|to| {
                to.costs.session_kib = 6.0;
                to.costs.edge_us = 5.0;
                to.costs.routing_us = 7.0;
                to.users.in_window = 0.9;
                to.waiting /= 10.0;
                to.costs.device_bytes = 60_000.0;
                to.costs.changes_per_s *= 10.0;
            }),
        ];
        let head = ["", "edges", "routings", "mailbox stores", "directory stores", "cells", "dollars a month"];
        table(&head, true, &rows)
    }
}

fn said(machines: &Machines) -> String {
    format!("{} ({})", number(machines.count()), machines.reason())
}

fn money(dollars: f64) -> String {
    number((dollars / 100.0).round() * 100.0)
}

fn cents(dollars: f64) -> String {
    format!("{:.2}", dollars * 100.0)
}

type Cell<'a> = (&'a str, &'a dyn Fn(&Need) -> String);

fn columns<const N: usize>(needs: &[Need], cells: &[Cell<'_>; N]) -> String {
    let rows: Vec<Vec<String>> = cells
        .iter()
        .map(|(name, cell)| std::iter::once((*name).to_owned()).chain(needs.iter().map(cell)).collect())
        .collect();
    table(&["", "1 M users", "100 M users", "1 B users"], true, &rows)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn inputs() -> Inputs {
        Inputs { waiting: 100.0, ..Inputs::default() }
    }

    #[test]
    fn more_users_need_more_of_everything_and_cost_more() {
        let needs = [1e6, 1e7, 1e8, 1e9].map(|users| inputs().need(users));
        for pair in needs.windows(2) {
            let [fewer, more] = pair else { unreachable!() };
            let machines =
                |need: &Need| [&need.edges, &need.routings, &need.mailboxes].map(|machines| machines.count());
            assert!(machines(fewer).iter().zip(machines(more)).all(|(fewer, more)| *fewer <= more));
            // Some need no more than one in each zone, of however many users.
            assert!(fewer.bills.iter().zip(&more.bills).all(|(less, more)| less.1 <= more.1));
            let all = |need: &Need| need.bills.iter().map(|bill| bill.1).sum::<f64>();
            assert!(all(fewer) < all(more));
        }
    }

    #[test]
    fn a_zone_may_fail() {
        let need = inputs().need(1e8);
        let left = (need.edges.count() * 2.0 / 3.0).ceil();
        assert!(left * inputs().plan.edge_sessions >= need.traffic.sessions);
        assert!(inputs().need(1.0).edges.count() >= 3.0, "one in each");
    }

    #[test]
    fn a_greater_cost_never_needs_less() {
        let with = |change: &dyn Fn(&mut Inputs)| {
            let mut inputs = inputs();
            change(&mut inputs);
            let need = inputs.need(1e8);
            (need.edges.count(), need.routings.count(), need.bills.iter().map(|bill| bill.1).sum::<f64>())
        };
        let base = with(&|_| {});
        for more in [
            with(&|to| to.costs.edge_us *= 100.0),
            with(&|to| to.costs.session_kib *= 10.0),
            with(&|to| to.costs.routing_us *= 100.0),
            with(&|to| to.users.in_window = 0.0),
        ] {
            assert!(more.0 >= base.0 && more.1 >= base.1 && more.2 > base.2);
        }
    }

    #[test]
    fn traffic_to_the_internet_is_paid_by_steps() {
        let inputs = inputs();
        assert!((inputs.egress(10_000.0) - 900.0).abs() < 1e-6);
        assert!((inputs.egress(200_000.0) - (900.0 + 3_400.0 + 7_000.0 + 2_500.0)).abs() < 1e-6);
    }
}
