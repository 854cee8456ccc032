//! What every process tells: who it is, whether it serves, and what it uses.

use std::sync::Arc;

use opentelemetry::{KeyValue, global};

use super::Identity;
use crate::health::{Health, Part};

/// Clock ticks that Linux counts processor time in, a second.
const TICKS: f64 = 100.0;

/// Everything but the health. What the system does not tell is left out.
pub(super) fn observe(who: Identity<'_>) {
    let meter = global::meter("causeway.process");
    let (service, version) = (who.service, who.version);
    meter
        .u64_observable_gauge("causeway.build.info")
        .with_description("1, labelled with what runs")
        .with_callback(move |to| {
            to.observe(1, &[KeyValue::new("service", service), KeyValue::new("version", version)]);
        })
        .build();
    let started = tokio::time::Instant::now();
    meter
        .f64_observable_gauge("process.uptime")
        .with_unit("s")
        .with_description("Time since the process started")
        .with_callback(move |to| to.observe(started.elapsed().as_secs_f64(), &[]))
        .build();
    meter
        .f64_observable_counter("process.cpu.time")
        .with_unit("s")
        .with_description("Processor time by mode")
        .with_callback(|to| {
            if let Some((user, system)) = cpu_time() {
                to.observe(user, &[KeyValue::new("cpu.mode", "user")]);
                to.observe(system, &[KeyValue::new("cpu.mode", "system")]);
            }
        })
        .build();
    meter
        .u64_observable_gauge("process.memory.usage")
        .with_unit("By")
        .with_description("Resident memory")
        .with_callback(|to| {
            if let Some(bytes) = resident_bytes() {
                to.observe(bytes, &[]);
            }
        })
        .build();
    meter
        .u64_observable_gauge("process.unix.file_descriptor.count")
        .with_unit("{file_descriptor}")
        .with_description("Open descriptors")
        .with_callback(|to| {
            if let Ok(open) = std::fs::read_dir("/proc/self/fd") {
                to.observe(open.count() as u64, &[]);
            }
        })
        .build();
    meter
        .u64_observable_gauge("causeway.process.file_descriptors.limit")
        .with_unit("{file_descriptor}")
        .with_description("Descriptors that may be open")
        .with_callback(|to| {
            if let Some(limit) = descriptor_limit() {
                to.observe(limit, &[]);
            }
        })
        .build();
    if let Ok(runtime) = tokio::runtime::Handle::try_current() {
        let runtime = Arc::new(runtime.metrics());
        let tasks = Arc::clone(&runtime);
        meter
            .u64_observable_gauge("causeway.process.tasks")
            .with_unit("{task}")
            .with_description("Tasks of the process that are alive")
            .with_callback(move |to| to.observe(tasks.num_alive_tasks() as u64, &[]))
            .build();
        meter
            .u64_observable_gauge("causeway.process.tasks.queued")
            .with_unit("{task}")
            .with_description("Tasks that could run and wait for a thread")
            .with_callback(move |to| to.observe(runtime.global_queue_depth() as u64, &[]))
            .build();
    }
}

/// Whether the process serves, and which parts of it do not.
pub(super) fn observe_health(health: Health) {
    let meter = global::meter("causeway.process");
    let of_parts = health.clone();
    meter
        .u64_observable_gauge("causeway.process.state")
        .with_description("1 for the state that the process is in, 0 for the others")
        .with_callback(move |to| {
            let current = health.status();
            for state in ["starting", "ready", "degraded", "draining"] {
                to.observe(u64::from(state == current), &[KeyValue::new("state", state)]);
            }
        })
        .build();
    meter
        .u64_observable_gauge("causeway.process.parts.degraded")
        .with_description("1 for each part that does not work, 0 for each that does")
        .with_callback(move |to| {
            for (part, state) in of_parts.parts() {
                to.observe(u64::from(state != Part::Up), &[KeyValue::new("part", part)]);
            }
        })
        .build();
}

/// In user and in system mode, in seconds.
fn cpu_time() -> Option<(f64, f64)> {
    let stat = std::fs::read_to_string("/proc/self/stat").ok()?;
    // The second field is the name, in parentheses, and may hold anything.
    let mut fields = stat.rsplit_once(')')?.1.split_ascii_whitespace().skip(11);
    let mut seconds = || fields.next()?.parse::<f64>().ok().map(|ticks| ticks / TICKS);
    Some((seconds()?, seconds()?))
}

fn resident_bytes() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    line.split_ascii_whitespace().next()?.parse::<u64>().ok().map(|kibibytes| kibibytes * 1024)
}

fn descriptor_limit() -> Option<u64> {
    let limits = std::fs::read_to_string("/proc/self/limits").ok()?;
    let line = limits.lines().find_map(|line| line.strip_prefix("Max open files"))?;
    line.split_ascii_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_system_tells() {
        assert!(resident_bytes().unwrap() > 100_000);
        assert!(descriptor_limit().unwrap() > 3);
        let (user, system) = cpu_time().unwrap();
        assert!(user >= 0.0 && system >= 0.0 && user + system < 1e6);
    }
}
