//! Carrying out one fault, and healing it.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use tokio::sync::watch;
use tokio::time::Instant;

use super::{Planned, Topology, service};
use crate::cluster::{Cluster, Postgres, Redis, Service, Store};
use crate::events::{Done, FaultKind};
use crate::preload::{Control, Hits};
use crate::proxy::{Break, Direction, Flow, Link, Mode, Seen};

/// How long and how much, for the reader.
pub(super) fn describe(planned: &Planned) -> String {
    let lasts = format!("{} ms", planned.lasts.as_millis());
    match planned.kind {
        FaultKind::Kill | FaultKind::PostgresKill | FaultKind::PostgresRestart | FaultKind::RedisKill => {
            format!("back after {lasts}")
        }
        FaultKind::StandbyKill | FaultKind::SentinelKill => format!("back after {lasts}"),
        FaultKind::StandbyLost => format!("promoted after {lasts}"),
        FaultKind::SyncLies => format!("killed after {lasts}"),
        FaultKind::KillStarting => {
            format!("killed again {} ms into its start, back {lasts} after", starting(planned).as_millis())
        }
        FaultKind::Reset
        | FaultKind::Herd
        | FaultKind::Drain
        | FaultKind::Rolling
        | FaultKind::RedisFlush
        | FaultKind::RedisFailover
        | FaultKind::PostgresTerminate => String::new(),
        FaultKind::HalfClose => format!("{:?}", direction(planned)),
        FaultKind::Delay => {
            let (least, most) = delay(planned);
            format!("{} to {} ms for {lasts}", least.as_millis(), most.as_millis())
        }
        FaultKind::Slow => format!("{} bytes/s for {lasts}", slow(planned)),
        FaultKind::CutMidway | FaultKind::CommitCut => format!("one in {} for {lasts}", one_in(planned)),
        FaultKind::SyncSlow => format!("{} ms each for {lasts}", sync_slow(planned).as_millis()),
        FaultKind::Clock => format!("by {} ms for {lasts}", clock(planned)),
        _ => format!("for {lasts}"),
    }
}

/// Gives what is only known afterwards.
pub(super) async fn perform(
    cluster: &Cluster,
    planned: &Planned,
    stopped: watch::Receiver<bool>,
) -> anyhow::Result<Done> {
    let target = planned.target.as_str();
    let hold = Hold { lasts: planned.lasts, stopped };
    match planned.kind {
        FaultKind::Kill => {
            let service = service(cluster, target)?;
            service.kill().await?;
            hold.wait().await;
            service.start().await?;
        }
        FaultKind::KillStarting => {
            let service = service(cluster, target)?;
            service.kill().await?;
            service.start_and_kill(starting(planned)).await?;
            hold.wait().await;
            service.start().await?;
        }
        FaultKind::Pause => {
            let service = service(cluster, target)?;
            service.pause().await?;
            hold.wait().await;
            service.resume().await?;
        }
        FaultKind::Drain => {
            let service = service(cluster, target)?;
            let stayed = leave(service).await.unwrap_or_default();
            service.start().await?;
            return Ok(Done { stayed, ..Done::plain() });
        }
        FaultKind::Rolling => {
            let mut stayed = Vec::new();
            for service in cluster.services() {
                stayed.extend(leave(service).await);
                service.start().await?;
            }
            return Ok(Done { stayed: stayed.join("; "), ..Done::plain() });
        }
        FaultKind::Isolate => {
            let links = Topology::of(cluster).touching(target);
            return on_links(cluster, &links, Mode::CUT, hold).await;
        }
        FaultKind::Cut | FaultKind::CutThere | FaultKind::CutBack | FaultKind::Delay | FaultKind::Slow => {
            return on_links(cluster, &[target.to_owned()], mode(planned), hold).await;
        }
        FaultKind::CutMidway => {
            let link = link(cluster, target)?;
            let before = link.seen().midway;
            on_links(cluster, &[target.to_owned()], mode(planned), hold).await?;
            let cut = link.seen().midway - before;
            return Ok(Done::met(cut, format!("connections {cut}")));
        }
        FaultKind::CommitCut => {
            let names = Topology::of(cluster).to_postgres(target);
            let links = names.iter().map(|name| link(cluster, name)).collect::<anyhow::Result<Vec<_>>>()?;
            let count = |seen: fn(&Seen) -> u64| links.iter().map(|link| seen(&link.seen())).sum::<u64>();
            let counts = || [count(|seen| seen.undone), count(|seen| seen.done), count(|seen| seen.later)];
            let before = counts();
            on_links(cluster, &names, mode(planned), hold).await?;
            let [undone, done, later] = counts();
            let [undone, done, later] = [undone - before[0], done - before[1], later - before[2]];
            let seen = format!("COMMITs undone {undone}, done {done}, done later {later}");
            return Ok(Done::met(undone + done + later, seen));
        }
        FaultKind::Reset | FaultKind::Herd => {
            let link = link(cluster, target)?;
            let open = link.seen().open;
            link.reset();
            return Ok(Done::met(open, format!("connections {open}")));
        }
        FaultKind::HalfClose => {
            let link = link(cluster, target)?;
            let open = link.seen().open;
            link.half_close(direction(planned));
            return Ok(Done::met(open, format!("connections {open}")));
        }
        FaultKind::DiskFull | FaultKind::SyncFails | FaultKind::SyncSlow | FaultKind::SyncLies | FaultKind::Clock => {
            return on_control(cluster, planned, hold).await;
        }
        FaultKind::RedisKill
        | FaultKind::RedisPause
        | FaultKind::RedisFlush
        | FaultKind::RedisSleep
        | FaultKind::RedisFailover
        | FaultKind::SentinelKill => return on_redis(cluster, planned, hold).await,
        FaultKind::PostgresKill
        | FaultKind::PostgresRestart
        | FaultKind::PostgresPause
        | FaultKind::PostgresPromote
        | FaultKind::StandbyKill
        | FaultKind::StandbyPause
        | FaultKind::StandbyLost
        | FaultKind::PostgresLock
        | FaultKind::PostgresTerminate => return on_postgres(cluster, planned, hold).await,
    }
    Ok(Done::plain())
}

/// A process that is told to leave is given 15 s by its settings; this is what a busy machine may add.
const LEAVES_WITHIN: Duration = Duration::from_secs(20);

/// Tells a process to leave; gives how it did not.
async fn leave(service: &Service) -> Option<String> {
    let began = Instant::now();
    let name = service.name();
    match service.leave().await {
        Err(error) => Some(format!("{name}: {error:#}")),
        Ok(()) if began.elapsed() > LEAVES_WITHIN => Some(format!("{name}: it took {} s", began.elapsed().as_secs())),
        Ok(()) => None,
    }
}

/// How long a fault is left as it is.
struct Hold {
    lasts: Duration,
    stopped: watch::Receiver<bool>,
}

impl Hold {
    /// Until its time is over, or the run's.
    async fn wait(mut self) {
        let stopped = self.stopped.wait_for(|stopped| *stopped);
        let _either = tokio::time::timeout(self.lasts, stopped).await;
    }
}

/// It has met something if bytes or connections were kept from passing as they would have.
async fn on_links(cluster: &Cluster, names: &[String], mode: Mode, hold: Hold) -> anyhow::Result<Done> {
    let links = names.iter().map(|name| link(cluster, name)).collect::<anyhow::Result<Vec<_>>>()?;
    let touched = || links.iter().map(|link| link.seen().touched).sum::<u64>();
    let before = touched();
    for link in &links {
        link.set(mode);
    }
    hold.wait().await;
    for link in &links {
        link.set(Mode::default());
    }
    Ok(Done::met(touched() - before, ""))
}

async fn on_redis(cluster: &Cluster, planned: &Planned, hold: Hold) -> anyhow::Result<Done> {
    let redis = cluster.redis().context("there is no Redis")?;
    let pick = pick(planned);
    let mut done = Done::plain();
    match planned.kind {
        FaultKind::RedisFlush => redis.run(Redis::flush).await?,
        FaultKind::RedisFailover => {
            // Servers of Redis that are out of each other's sight do not change places.
            if let Err(error) = redis.run(move |redis| redis.failover(pick)).await {
                done = Done::met(0, format!("it did not happen: {error:#}"));
            }
        }
        FaultKind::RedisSleep => {
            let seconds = hold.lasts.as_secs_f64().to_string();
            // It answers when it has slept.
            redis.run(move |redis| Ok(redis.server(pick)?.call(&["DEBUG", "SLEEP", &seconds])?)).await?;
        }
        FaultKind::RedisKill => {
            done.seen = redis.run(move |redis| killed(redis.server(pick)?)).await?;
            hold.wait().await;
        }
        FaultKind::SentinelKill => {
            done.seen = redis.run(move |redis| killed(redis.sentinel(pick)?)).await?;
            hold.wait().await;
        }
        _ => {
            redis.run(move |redis| Ok(redis.server(pick)?.pause()?)).await?;
            hold.wait().await;
        }
    }
    redis.run(Redis::heal).await?;
    Ok(done)
}

fn killed(server: &mut causeway_test_servers::Redis) -> anyhow::Result<String> {
    let port = server.port();
    server.kill()?;
    Ok(format!("port {port}"))
}

async fn on_postgres(cluster: &Cluster, planned: &Planned, hold: Hold) -> anyhow::Result<Done> {
    let postgres = postgres(cluster)?;
    let pick = pick(planned);
    match planned.kind {
        FaultKind::PostgresKill => {
            postgres.run(|postgres| Ok(held(postgres).kill()?)).await?;
            hold.wait().await;
        }
        FaultKind::PostgresRestart => {
            postgres.run(|postgres| Ok(held(postgres).stop_immediate()?)).await?;
            hold.wait().await;
        }
        FaultKind::PostgresPause => {
            postgres.run(|postgres| Ok(postgres.primary().pause()?)).await?;
            hold.wait().await;
        }
        FaultKind::PostgresPromote => {
            let promote = |postgres: &mut Postgres| {
                postgres.hold();
                postgres.promote()
            };
            postgres.run(promote).await?;
            hold.wait().await;
        }
        FaultKind::StandbyKill => {
            postgres.run(|postgres| Ok(held_standby(postgres)?.kill()?)).await?;
            hold.wait().await;
        }
        FaultKind::StandbyPause => {
            postgres.run(|postgres| Ok(held_standby(postgres)?.pause()?)).await?;
            hold.wait().await;
        }
        FaultKind::StandbyLost => {
            postgres.run(|postgres| Ok(held_standby(postgres)?.pause()?)).await?;
            hold.wait().await;
            let take_over = |postgres: &mut Postgres| {
                // Dead before the standby can hear more from it.
                postgres.primary().kill()?;
                held_standby(postgres)?.resume()?;
                postgres.promote()
            };
            postgres.run(take_over).await?;
        }
        FaultKind::PostgresLock => {
            // The table may be in use for too long; then nothing was done.
            let locked = postgres.run(move |postgres| postgres.lock(pick)).await;
            let Ok((table, session)) = locked else { return Ok(Done::met(0, "not locked")) };
            hold.wait().await;
            drop(session);
            return Ok(Done { seen: format!("table {table}"), ..Done::plain() });
        }
        _ => {
            let count = postgres.run(Postgres::terminate).await?;
            return Ok(Done::met(count as u64, format!("connections {count}")));
        }
    }
    postgres.run(Postgres::heal).await?;
    Ok(Done::plain())
}

/// The standby, which nobody starts again before it is healed.
fn held_standby(postgres: &mut Postgres) -> anyhow::Result<&mut causeway_test_servers::Postgres> {
    postgres.hold();
    postgres.standby().context("there is no standby")
}

/// The primary, which nobody starts again before it is healed.
fn held(postgres: &mut Postgres) -> &mut causeway_test_servers::Postgres {
    postgres.hold();
    postgres.primary()
}

/// Disks and clocks. They have met something if the process used them meanwhile.
async fn on_control(cluster: &Cluster, planned: &Planned, hold: Hold) -> anyhow::Result<Done> {
    let apply = {
        let planned = planned.clone();
        move |control: &Control, ill: bool| match planned.kind {
            FaultKind::DiskFull => control.disk_full(ill),
            FaultKind::SyncFails => control.sync_fails(ill),
            FaultKind::SyncLies => control.sync_lies(ill),
            FaultKind::SyncSlow => control.sync_slow(if ill { sync_slow(&planned) } else { Duration::ZERO }),
            _ => control.clock(if ill { clock(&planned) } else { 0 }),
        }
    };
    let may_end = matches!(planned.kind, FaultKind::DiskFull | FaultKind::SyncFails);
    let is_killed = planned.kind == FaultKind::SyncLies;
    if planned.target == "postgres" {
        let postgres = postgres(cluster)?;
        let begin = apply.clone();
        let begun = move |postgres: &mut Postgres| {
            if may_end || is_killed {
                postgres.hold();
            }
            begin(postgres.control(), true)?;
            postgres.control().hits()
        };
        let before = postgres.run(begun).await?;
        hold.wait().await;
        let ended = move |postgres: &mut Postgres| {
            if is_killed {
                postgres.primary().kill()?;
            }
            apply(postgres.control(), false)?;
            postgres.control().hits()
        };
        let after = postgres.run(ended).await?;
        if may_end || is_killed {
            // It may have stopped altogether, since it could not recover.
            postgres.run(Postgres::heal).await?;
        }
        return Ok(used(planned.kind, before, after));
    }
    let service = service(cluster, &planned.target)?;
    if may_end {
        service.excuse(true);
    }
    let before = service.control().hits()?;
    let begun = apply(service.control(), true);
    hold.wait().await;
    let killed = if is_killed { service.kill().await } else { Ok(()) };
    let ended = apply(service.control(), false);
    let after = service.control().hits()?;
    let started = service.start().await;
    if may_end {
        service.excuse(false);
    }
    begun.and(killed).and(ended).and(started)?;
    Ok(used(planned.kind, before, after))
}

/// How often a disk or a clock was wrong when the process used it.
fn used(kind: FaultKind, before: Hits, after: Hits) -> Done {
    let (what, before, after) = match kind {
        FaultKind::DiskFull => ("writes", before.writes, after.writes),
        FaultKind::Clock => ("looks", before.clocks, after.clocks),
        _ => ("syncs", before.syncs, after.syncs),
    };
    let count = after.saturating_sub(before);
    Done::met(count, format!("{what} {count}"))
}

fn postgres(cluster: &Cluster) -> anyhow::Result<&Store<Postgres>> {
    cluster.postgres().context("there is no PostgreSQL")
}

fn link<'c>(cluster: &'c Cluster, name: &str) -> anyhow::Result<&'c Arc<Link>> {
    cluster.links().get(name).with_context(|| format!("no link is called {name}"))
}

fn mode(planned: &Planned) -> Mode {
    match planned.kind {
        FaultKind::CutThere => Mode { there: Flow::Stall, ..Mode::default() },
        FaultKind::CutBack => Mode { back: Flow::Stall, ..Mode::default() },
        FaultKind::Delay => {
            let (least, most) = delay(planned);
            Mode::both(Flow::Late { least, most })
        }
        FaultKind::Slow => Mode::both(Flow::Slow { bytes_per_s: slow(planned) }),
        FaultKind::CutMidway => Mode { breaks: Break::Midway { one_in: one_in(planned) }, ..Mode::default() },
        FaultKind::CommitCut => Mode { breaks: Break::Commit { one_in: one_in(planned) }, ..Mode::default() },
        _ => Mode::CUT,
    }
}

fn pick(planned: &Planned) -> usize {
    (planned.pick % 1_000_003) as usize
}

fn starting(planned: &Planned) -> Duration {
    Duration::from_millis(5 + planned.pick % 400)
}

fn direction(planned: &Planned) -> Direction {
    if planned.pick.is_multiple_of(2) { Direction::There } else { Direction::Back }
}

fn delay(planned: &Planned) -> (Duration, Duration) {
    let least = 5 + planned.pick % 100;
    (Duration::from_millis(least), Duration::from_millis(least + planned.pick / 128 % 300))
}

fn slow(planned: &Planned) -> u32 {
    1_000 + (planned.pick % 20_000) as u32
}

fn one_in(planned: &Planned) -> u32 {
    match planned.kind {
        FaultKind::CommitCut => 1 + (planned.pick % 4) as u32,
        _ => 5 + (planned.pick % 50) as u32,
    }
}

fn sync_slow(planned: &Planned) -> Duration {
    Duration::from_millis(20 + planned.pick % 480)
}

/// Milliseconds, forwards or backwards: a little, half a minute, or minutes.
fn clock(planned: &Planned) -> i64 {
    let size = [1_500, 30_000, 300_000][(planned.pick / 2 % 3) as usize];
    if planned.pick.is_multiple_of(2) { size } else { -size }
}
