//! Ada, who uses a third-party messenger, and bo, who uses the operator's: what they do and what they must see.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use aws_lc_rs::digest::{SHA256, digest};
use causeway_client::media::{MediaDetails, MediaTransfers, ProviderHost};
use causeway_client::{
    Address, Content, MediaKind, Message, Outcome, ProviderKind, RejectReason, Rejection, SendResult,
};
use tokio::time::Instant;

use crate::device::Device;
use crate::story::{Story, seconds};
use crate::world::{HOME, THIRD, World};

const PICTURE: &[u8] = include_bytes!("../picture.png");
const NOT_AVAILABLE: SendResult = SendResult::Rejected(RejectReason::Server(Rejection::NotAvailable));

/// Two people with two devices each.
pub(crate) struct People {
    pub(crate) ada: Address,
    pub(crate) bo: Address,
    pub(crate) ada_phone: Device,
    pub(crate) ada_tablet: Device,
    pub(crate) bo_phone: Device,
    pub(crate) bo_tablet: Device,
}

impl People {
    /// Both enlist two devices.
    pub(crate) async fn enlist(world: &World, story: &mut Story) -> anyhow::Result<Self> {
        story.step("Ada (birdy.example) and bo (home.example) enlist two devices each");
        let ada: Address = format!("ada@{THIRD}").parse()?;
        let bo: Address = format!("bo@{HOME}").parse()?;
        let began = Instant::now();
        let people = Self {
            ada_phone: world.device(&ada, "phone").await?,
            ada_tablet: world.device(&ada, "tablet").await?,
            bo_phone: world.device(&bo, "phone").await?,
            bo_tablet: world.device(&bo, "tablet").await?,
            ada,
            bo,
        };
        story.tell("device -> own provider: a token bound to the device's Noise key");
        story.tell("device -> edge: Noise XX handshake with the token, then its public keys and 200 one-time prekeys");
        story.tell(&format!("four devices enlisted in {}", seconds(began.elapsed())));
        Ok(people)
    }

    /// Nobody is reachable who did not opt in.
    pub(crate) async fn refuse_before_consent(&self, story: &mut Story) -> anyhow::Result<()> {
        story.step("Ada writes before anybody has opted in");
        let refused = say(&self.ada_phone, &self.bo, "are you there?").await?;
        ensure!(refused.result == NOT_AVAILABLE, "the message should have been refused, but: {:?}", refused.result);
        story.tell("edge -> ada: not-available; nothing was delivered");
        Ok(())
    }

    pub(crate) async fn opt_in(&self, story: &mut Story) -> anyhow::Result<()> {
        story.step("Both opt in to messages from other messengers");
        self.ada_phone.client.opt_in().await.context("ada opts in")?;
        self.bo_phone.client.opt_in().await.context("bo opts in")?;
        story.tell("confirmed by key-directory once no part of the server can act on the old setting");
        Ok(())
    }

    /// Text in both directions, on all four devices.
    pub(crate) async fn talk(&self, story: &mut Story) -> anyhow::Result<()> {
        story.step("They talk");
        let hello = "Hello from Birdy! Does this reach you?";
        let sent = say(&self.ada_phone, &self.bo, hello).await?;
        accepted(&sent)?;
        tell_sent(story, "ada", hello, &sent);
        for device in [&self.bo_phone, &self.bo_tablet] {
            let message = device.expect_text(hello).await?;
            marked(&message, ProviderKind::ThirdParty, THIRD)?;
            tell_arrived(story, device, &message);
        }
        let answer = "It does, on both my devices.";
        let sent = say(&self.bo_phone, &self.ada, answer).await?;
        accepted(&sent)?;
        tell_sent(story, "bo", answer, &sent);
        for device in [&self.ada_phone, &self.ada_tablet] {
            let message = device.expect_text(answer).await?;
            marked(&message, ProviderKind::Home, HOME)?;
            tell_arrived(story, device, &message);
        }
        Ok(())
    }

    /// A real picture, by way of the sender's media host and the operator's relay.
    pub(crate) async fn send_picture(&self, world: &World, story: &mut Story, folder: &Path) -> anyhow::Result<()> {
        story.step("Ada sends a picture");
        let transfers = MediaTransfers::new(Default::default())?;
        let upload_url = world.provider(THIRD).said("upload_url")?;
        let host = ProviderHost::new(upload_url, world.tokens(&self.ada)?, self.ada_phone.client.noise_public())?;
        let began = Instant::now();
        let media = transfers.upload(&host, PICTURE, picture()).await.context("upload")?;
        let size = media.ciphertext_size;
        story.tell(&format!(
            "ada's phone -> {THIRD} media host: {size} bytes of ciphertext in {}",
            seconds(began.elapsed())
        ));
        let id = self.ada_phone.client.send(&self.bo, Content::media(media)).await?;
        accepted(&self.ada_phone.outcome(id).await?)?;
        for device in [&self.bo_phone, &self.bo_tablet] {
            let (mime_type, took) = arrives(device, &transfers, &folder.join(file_name(device, ""))).await?;
            story.tell(&format!(
                "{THIRD} media host -> media-relay -> {}: {mime_type} in {}, same bytes",
                device.name,
                seconds(took)
            ));
        }
        story.tell(&format!(
            "SHA-256 of the picture at both ends: {}",
            hex::encode(&digest(&SHA256, PICTURE).as_ref()[..8])
        ));
        Ok(())
    }

    /// The same picture back, by way of the operator's own store.
    pub(crate) async fn send_picture_back(&self, story: &mut Story, folder: &Path) -> anyhow::Result<()> {
        story.step("Bo sends the picture back");
        let transfers = MediaTransfers::new(Default::default())?;
        let began = Instant::now();
        let media = transfers.upload(&self.bo_phone.client, PICTURE, picture()).await.context("upload")?;
        let size = media.ciphertext_size;
        story.tell(&format!("bo's phone -> media-relay: {size} bytes of ciphertext in {}", seconds(began.elapsed())));
        let id = self.bo_phone.client.send(&self.ada, Content::media(media)).await?;
        accepted(&self.bo_phone.outcome(id).await?)?;
        for device in [&self.ada_phone, &self.ada_tablet] {
            let (_, took) = arrives(device, &transfers, &folder.join(file_name(device, "-back"))).await?;
            story.tell(&format!("media-relay -> {}: same bytes in {}", device.name, seconds(took)));
        }
        Ok(())
    }

    /// A device that was off gets what it missed, in order.
    pub(crate) async fn fetch_later(&mut self, world: &World, story: &mut Story) -> anyhow::Result<()> {
        story.step("Bo's tablet is off while ada writes, and comes back");
        let lines = ["First: the train is late.", "Second: it left.", "Third: there at eight."];
        let off = world.device_state(&self.bo, "tablet");
        let tablet = std::mem::replace(&mut self.bo_tablet, world.device(&self.bo, "spare").await?);
        tablet.off().await;
        story.tell("tablet off; meanwhile bo enlists a third device, which ada's client finds by itself");
        for line in lines {
            let sent = say(&self.ada_phone, &self.bo, line).await?;
            ensure!(sent.result == SendResult::Stored, "with a device off it should be stored: {:?}", sent.result);
            tell_sent(story, "ada", line, &sent);
            self.bo_phone.expect_text(line).await?;
        }
        ensure!(off.is_file(), "the tablet's state should be there");
        let began = Instant::now();
        let spare = std::mem::replace(&mut self.bo_tablet, world.device(&self.bo, "tablet").await?);
        for line in lines {
            self.bo_tablet.expect_text(line).await?;
            spare.expect_text(line).await?;
        }
        ensure!(self.bo_tablet.unread() == 0, "the tablet got more than it missed");
        story.tell(&format!(
            "mailbox -> bo's tablet: three messages in their order, {} after it was switched on (Noise IK)",
            seconds(began.elapsed())
        ));
        // The third device was there to show that a new one is found by itself; its account goes on with two.
        let device = spare.client.device().context("the spare is enlisted")?.device;
        self.bo_phone.client.remove_device(device).await.context("remove the spare")?;
        spare.off().await;
        story.tell("bo removes the third device again");
        Ok(())
    }

    /// Who did not opt in cannot be told from who does not exist.
    pub(crate) async fn refuse_strangers(&self, world: &World, story: &mut Story) -> anyhow::Result<()> {
        story.step("Ada writes to somebody who has not opted in, and to somebody who does not exist");
        let cleo: Address = format!("cleo@{HOME}").parse()?;
        let nobody: Address = format!("nobody@{HOME}").parse()?;
        let her_phone = world.device(&cleo, "phone").await?;
        for (who, address) in [("cleo, enlisted but not opted in", &cleo), ("nobody", &nobody)] {
            let refused = say(&self.ada_phone, address, "hello?").await?;
            ensure!(refused.result == NOT_AVAILABLE, "{who} should be not-available: {:?}", refused.result);
            story.tell(&format!("to {who}: not-available, in {}", seconds(refused.latency)));
        }
        ensure!(her_phone.unread() == 0, "cleo got a message without having opted in");
        her_phone.off().await;
        story.tell("the same answer for both; cleo's phone has nothing");
        Ok(())
    }

    pub(crate) async fn leave(self) {
        for device in [self.ada_phone, self.ada_tablet, self.bo_phone, self.bo_tablet] {
            device.off().await;
        }
    }
}

async fn say(from: &Device, to: &Address, text: &str) -> anyhow::Result<Outcome> {
    let id = from.client.send(to, Content::text(text)).await?;
    from.outcome(id).await
}

fn picture() -> MediaDetails {
    MediaDetails {
        kind: MediaKind::Image,
        mime_type: "image/png".to_owned(),
        name: "picture.png".to_owned(),
        width: 480,
        height: 320,
        ..MediaDetails::default()
    }
}

fn file_name(device: &Device, more: &str) -> String {
    format!("{}{more}.png", device.name.replace([' ', '\''], "-"))
}

/// The picture comes to a device, which copies it: its type, and how long that took.
async fn arrives(device: &Device, transfers: &MediaTransfers, copy: &Path) -> anyhow::Result<(String, Duration)> {
    let message = device.next().await?;
    let media = message.content.as_media().context("the message should be media")?;
    let began = Instant::now();
    let mut file = tokio::fs::File::create(copy).await.context("make the copy")?;
    transfers.download(&device.client, media, &mut file).await.context("download")?;
    file.sync_all().await?;
    let bytes = std::fs::read(copy).context("read the copy")?;
    ensure!(bytes == PICTURE, "the picture that arrived on {} is not the one that was sent", device.name);
    Ok((media.mime_type.clone(), began.elapsed()))
}

fn accepted(outcome: &Outcome) -> anyhow::Result<()> {
    if !outcome.result.is_accepted() {
        bail!("a message was not accepted: {:?}", outcome.result);
    }
    Ok(())
}

fn marked(message: &Message, kind: ProviderKind, provider: &str) -> anyhow::Result<()> {
    let origin = &message.origin;
    ensure!(origin.kind == kind && origin.provider == provider, "a message is marked as from {origin:?}");
    Ok(())
}

fn tell_sent(story: &Story, who: &str, text: &str, sent: &Outcome) {
    let result = if sent.result == SendResult::Delivered { "delivered" } else { "stored" };
    story.tell(&format!("{who}: \"{text}\" -> edge -> routing: {result} after {}", seconds(sent.latency)));
}

fn tell_arrived(story: &Story, device: &Device, message: &Message) {
    let origin = &message.origin;
    let kind = if origin.kind == ProviderKind::Home { "home" } else { "third-party" };
    story.tell(&format!(
        "   {} shows it: {kind}, {}, {} inbox, {} encryption",
        device.name,
        origin.provider,
        origin.inbox.as_str(),
        origin.protocol
    ));
}
