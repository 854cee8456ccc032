use std::path::Path;

use super::*;
use crate::cluster::ClusterOptions;
use crate::events::{self, FaultLog};

fn scaled() -> Topology {
    let mut links = Vec::new();
    for edge in ["edge-1", "edge-2"] {
        links.push(format!("clients>{edge}"));
        links.extend(["routing-1", "directory-1", "redis"].map(|to| format!("{edge}>{to}")));
    }
    links.extend(["routing-1>postgres", "routings>routing-1", "directory-1>postgres"].map(str::to_owned));
    let services = ["directory-1", "routing-1", "edge-1", "edge-2"].map(str::to_owned).to_vec();
    Topology { services, links, postgres: Some(PostgresShape::Pair), redis: Some(RedisShape::Sentinel) }
}

#[test]
fn a_seed_gives_the_same_faults_again_and_another_others() {
    let plan = Plan::new(Duration::from_secs(600));
    let first = schedule(1, &scaled(), &plan);
    assert_eq!(first, schedule(1, &scaled(), &plan));
    assert_ne!(first, schedule(2, &scaled(), &plan));
    // A fault about each 5 s in three of four periods.
    assert!((50..150).contains(&first.len()), "{}", first.len());
    assert!(first.windows(2).all(|pair| pair[0].at <= pair[1].at));
}

#[test]
fn every_kind_is_drawn_and_only_on_what_there_is() {
    let plan = Plan::new(Duration::from_secs(6_000));
    let drawn = schedule(3, &scaled(), &plan);
    let kinds: BTreeSet<_> = drawn.iter().map(|planned| planned.kind).collect();
    assert_eq!(kinds.len(), FaultKind::ALL.len());
    for planned in &drawn {
        assert!(scaled().targets(planned.kind).contains(&planned.target), "{planned:?}");
        assert!(!scaled().resources(planned).contains(""));
        let _text = perform::describe(planned);
    }
    let one = Topology {
        services: vec!["all".to_owned()],
        links: vec!["clients>all".to_owned()],
        postgres: None,
        redis: None,
    };
    let kinds: BTreeSet<_> = schedule(3, &one, &plan).iter().map(|planned| planned.kind).collect();
    assert!(kinds.contains(&FaultKind::DiskFull) && !kinds.contains(&FaultKind::PostgresKill));
    assert!(!kinds.contains(&FaultKind::Isolate));
}

#[test]
fn isolation_touches_all_links_of_a_process() {
    let links = scaled().touching("routing-1");
    assert_eq!(links, ["edge-1>routing-1", "edge-2>routing-1", "routing-1>postgres", "routings>routing-1"]);
}

/// One of each kind: at once, as far as their targets allow, or `in_turn`.
async fn all_kinds(variant: Variant, folder: &Path, in_turn: bool) {
    let log = FaultLog::create(folder, Instant::now()).unwrap();
    let options = ClusterOptions { variant, seed: 1, folder: folder.to_owned(), settings: Vec::new(), binary: None };
    let cluster = Cluster::start(options, log).await.unwrap();
    let topology = Topology::of(&cluster);
    let mut nemesis = Nemesis::new(1, &cluster, &Plan::new(Duration::from_secs(1)));
    let mut planned = Vec::new();
    // One of each, in turn, and short: this is about the faults, not about the deployment.
    for kind in FaultKind::ALL {
        let targets = topology.targets(kind);
        let Some(target) = targets.first().cloned() else { continue };
        let at = Duration::from_millis(50 * planned.len() as u64);
        planned.push(Planned { at, kind, target, lasts: Duration::from_millis(50), pick: 12 });
    }
    let count = planned.len();
    if in_turn {
        let (_never, stopped) = watch::channel(false);
        for planned in std::mem::take(&mut planned) {
            let state = Arc::clone(&nemesis.state);
            carry_out(Arc::clone(&cluster), planned, BTreeSet::new(), state, stopped.clone()).await.unwrap();
        }
    }
    nemesis.schedule = planned.into_iter();
    let done = nemesis.run(std::future::pending()).await.unwrap();
    assert_eq!(done.failed, Vec::<String>::new());
    let faults = events::read(folder).unwrap();
    assert_eq!(faults.faults.len() + done.left_out as usize, count);
    cluster.stop().await.unwrap();
    let faults = events::read(folder).unwrap();
    assert_eq!(faults.bad, []);
    assert!(faults.faults.iter().all(|fault| fault.end.is_some()));
}

#[tokio::test]
async fn one_process_survives_a_fault_of_each_kind() {
    let folder = tempfile::tempdir().unwrap();
    all_kinds(Variant::One, folder.path(), false).await;
}

#[tokio::test]
async fn many_processes_survive_a_fault_of_each_kind() {
    let folder = tempfile::tempdir().unwrap();
    all_kinds(Variant::Scaled(PostgresShape::Pair, RedisShape::Sentinel), folder.path(), false).await;
}

#[tokio::test]
#[ignore = "takes a minute"]
async fn many_processes_survive_a_fault_of_each_kind_in_turn() {
    for (postgres, redis) in [(PostgresShape::Pair, RedisShape::Sentinel), (PostgresShape::Single, RedisShape::Cluster)]
    {
        let folder = tempfile::tempdir().unwrap();
        all_kinds(Variant::Scaled(postgres, redis), folder.path(), true).await;
        for fault in events::read(folder.path()).unwrap().faults {
            let took = (fault.end.unwrap() - fault.begin) / 1_000;
            println!("{:>6} ms {:<18} {:<24} {} {}", took, fault.kind, fault.target, fault.how, fault.seen);
        }
    }
}
