//! One version replaces the other, process by process, on the same stores and under load.

use causeway_tests::{Program, Shape, World};

use crate::rolling_restart::{Load, SETTINGS};

/// First the present program replaces the earlier one, then the other way round; so in between each service of each of the two has
/// spoken with those of the other. See docs/upgrades.md.
#[tokio::test]
async fn versions_replace_each_other_under_load_and_nothing_is_lost_doubled_or_reordered() -> anyhow::Result<()> {
    let mut world = World::start_with_program(Program::Earlier, Shape::Replicas, SETTINGS).await?;
    let mut load = Load::start(&world).await?;
    world.net.run(Program::Present);
    for replica in world.net.replicas() {
        load.restart(&mut world, replica).await?;
    }
    // A roll-back goes the other way round, so that again who calls is never newer than who answers.
    world.net.run(Program::Earlier);
    for replica in world.net.replicas().into_iter().rev() {
        load.restart(&mut world, replica).await?;
    }
    load.finish().await?;
    world.net.assert_alive()
}
