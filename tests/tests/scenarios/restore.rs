//! The directory's database is restored from a backup (docs/backups.md).

use std::path::{Path, PathBuf};

use anyhow::Context as _;
use causeway_client::{Ended, EventKind};
use causeway_tests::{Shape, World, within};

/// The name of the database of a deployment on PostgreSQL.
const DATABASE: &str = "test_1";

#[tokio::test]
async fn clients_recover_after_the_directory_of_one_process_is_restored() -> anyhow::Result<()> {
    drill(Shape::One).await
}

#[tokio::test]
async fn clients_recover_after_postgresql_is_restored_from_a_dump() -> anyhow::Result<()> {
    drill(Shape::Replicas).await
}

async fn drill(shape: Shape) -> anyhow::Result<()> {
    let mut world = World::start_as(shape, &[]).await?;
    let (ada, mut bo) = (world.at_birdy("ada").await?, world.at_home("bo").await?);
    assert!(ada.send(bo.address(), "before").await?.is_accepted());
    assert_eq!(bo.next_text().await?, "before");
    let backup = Backup::of(&mut world).await?;

    // Keys of the backup are handed out, and a device is enlisted that is not in it.
    let mut cy = world.at_home("cy").await?;
    assert!(cy.send(bo.address(), "after the backup").await?.is_accepted());
    assert!(ada.send(cy.address(), "to cy").await?.is_accepted());
    assert_eq!((bo.next_text().await?, cy.next_text().await?), ("after the backup".to_owned(), "to cy".to_owned()));

    // As if the database had been lost: all stops, and what was in the backup comes back.
    assert!(world.net.terminate().await?.success());
    backup.restore(&world).await?;
    let said = world.net.refuses_to_start().await?;
    assert!(said.contains("after-restore"), "{said}");
    let said = world.net.after_restore().await?;
    assert!(said.starts_with("given up: ") && !said.starts_with("given up: 0 "), "{said}");
    world.net.restart().await?;

    // The device that is not in the backup is told so, and its user takes a new one.
    let told = cy.wait_for("the end of a device", |kind| match kind {
        EventKind::Ended(ended) => Some(*ended),
        _ => None,
    });
    assert_eq!(told.await?, Ended::DeviceRemoved);
    let mut cy = world.at_home("cy").await?;
    // The others go on, and everybody can open sessions with everybody.
    assert!(ada.send(bo.address(), "after").await?.is_accepted());
    assert_eq!(bo.next_text().await?, "after");
    assert!(ada.send(cy.address(), "welcome back").await?.is_accepted());
    assert_eq!(cy.next_text().await?, "welcome back");
    for (n, user) in ["dee", "eve"].into_iter().enumerate() {
        let new = world.at_birdy(user).await?;
        assert!(new.send(bo.address(), &n.to_string()).await?.is_accepted());
        assert_eq!(bo.next_text().await?, n.to_string());
    }
    if shape == Shape::Replicas {
        everybody_has_published(&world).await?;
    }
    world.net.assert_alive()
}

/// Those that lost their one-time keys have published new ones by themselves.
async fn everybody_has_published(world: &World) -> anyhow::Result<()> {
    let without = "SELECT count(*) FROM devices d WHERE NOT EXISTS (SELECT FROM one_time_prekeys k WHERE
        k.account_id = d.account_id AND k.device_id = d.device_id AND k.public_key IS NOT NULL)";
    within("prekeys are published", async {
        loop {
            let rows = world.net.postgres()?.run(move |postgres| postgres.execute(DATABASE, without)).await?;
            if rows.first().and_then(|row| row.first()).is_some_and(|count| count.as_deref() == Some("0")) {
                return Ok(());
            }
            tokio::task::yield_now().await;
        }
    })
    .await
}

enum Backup {
    /// A dump by PostgreSQL's own program.
    Dump(Vec<u8>),
    /// The files of SQLite.
    File(tempfile::TempDir),
}

impl Backup {
    async fn of(world: &mut World) -> anyhow::Result<Self> {
        if let Ok(postgres) = world.net.postgres() {
            return Ok(Self::Dump(postgres.run(|postgres| postgres.dump(DATABASE)).await?));
        }
        assert!(world.net.terminate().await?.success());
        let folder = tempfile::tempdir()?;
        for file in files(&world.net.data().join("directory"))? {
            std::fs::copy(&file, folder.path().join(file.file_name().context("a name")?))?;
        }
        world.net.restart().await?;
        Ok(Self::File(folder))
    }

    async fn restore(self, world: &World) -> anyhow::Result<()> {
        match self {
            Self::Dump(dump) => world.net.postgres()?.run(move |postgres| postgres.restore(DATABASE, &dump)).await,
            Self::File(folder) => {
                let to = world.net.data().join("directory");
                for old in files(&to)? {
                    std::fs::remove_file(old)?;
                }
                for file in files(folder.path())? {
                    std::fs::copy(&file, to.join(file.file_name().context("a name")?))?;
                }
                Ok(())
            }
        }
    }
}

/// The database, and the log that SQLite may have left beside it.
fn files(folder: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let all = std::fs::read_dir(folder)?.map(|entry| Ok(entry?.path())).collect::<anyhow::Result<Vec<_>>>()?;
    let is_database = |file: &PathBuf| file.to_string_lossy().contains("directory.sqlite");
    Ok(all.into_iter().filter(is_database).collect())
}
