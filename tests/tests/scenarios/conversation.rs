//! The first conversation: a user of another provider and a home user, with two devices each.

use causeway_client::{Content, EventKind, Inbox, ProviderKind, SendResult};
use causeway_tests::{Device, Shape, World};

#[tokio::test]
async fn two_users_of_different_providers_talk_on_all_their_devices() -> anyhow::Result<()> {
    talk(Shape::One).await
}

#[tokio::test]
async fn two_users_of_different_providers_talk_through_many_processes() -> anyhow::Result<()> {
    talk(Shape::Many).await
}

#[tokio::test]
async fn two_users_of_different_providers_talk_through_many_replicas() -> anyhow::Result<()> {
    talk(Shape::Replicas).await
}

async fn talk(shape: Shape) -> anyhow::Result<()> {
    let is_one = matches!(shape, Shape::One);
    let world = World::start_as(shape, &[]).await?;
    // Within a process nothing goes through a stream.
    let linked = format!("in_process={is_one}");
    assert!(world.net.log().lines().any(|line| line.contains("linked to routing") && line.contains(&linked)));
    let (mut ada, mut ada_too) = (world.at_birdy("ada").await?, world.at_birdy("ada").await?);
    let (mut bo, mut bo_too) = (world.at_home("bo").await?, world.at_home("bo").await?);

    assert!(ada.send(bo.address(), "hello from Birdy").await?.is_accepted());
    for device in [&mut bo, &mut bo_too] {
        let message = device.next_message().await?;
        assert_eq!(message.content.as_text(), Some("hello from Birdy"));
        assert_eq!(&message.from.account, ada.address());
        let origin = message.origin;
        assert_eq!((origin.provider.as_str(), origin.kind), ("birdy.example", ProviderKind::ThirdParty));
        assert_eq!((origin.protocol.as_str(), origin.inbox), ("signal", Inbox::ThirdParty));
    }
    assert_eq!(ada_too.next_sent_elsewhere().await?, "hello from Birdy");

    assert!(bo_too.send(ada.address(), "hello from home").await?.is_accepted());
    for device in [&mut ada, &mut ada_too] {
        let message = device.next_message().await?;
        assert_eq!(message.content.as_text(), Some("hello from home"));
        assert_eq!(message.origin.kind, ProviderKind::Home);
    }
    assert_eq!(bo.next_sent_elsewhere().await?, "hello from home");

    // With everybody online and the sessions made, messages are delivered rather than stored, in order.
    for n in 0..20 {
        let (from, to, to_too) =
            if n % 2 == 0 { (&ada, &mut bo, &mut bo_too) } else { (&bo_too, &mut ada, &mut ada_too) };
        let text = format!("message {n}");
        let address = to.address().clone();
        let (sent, arrived, arrived_too) = tokio::join!(from.send(&address, &text), to.next_text(), to_too.next_text());
        assert!(sent?.is_accepted());
        assert_eq!((arrived?, arrived_too?), (text.clone(), text));
    }
    Ok(())
}

#[tokio::test]
async fn an_answer_names_what_it_answers() -> anyhow::Result<()> {
    let world = World::start().await?;
    let (mut ada, mut bo) = (world.at_birdy("ada").await?, world.at_home("bo").await?);
    ada.send(bo.address(), "how are you?").await?;
    let question = bo.next_message().await?;
    let answer = Content::text("well").in_reply_to(question.id);
    bo.client().send_and_wait(ada.address(), answer).await?;
    let answer = ada.next_message().await?;
    assert_eq!(answer.content.reply_to, Some(question.id));
    Ok(())
}

#[tokio::test]
async fn a_device_that_joins_later_gets_what_comes_later() -> anyhow::Result<()> {
    let world = World::start().await?;
    let (ada, mut bo) = (world.at_birdy("ada").await?, world.at_home("bo").await?);
    ada.send(bo.address(), "before").await?;
    assert_eq!(bo.next_text().await?, "before");
    let mut bo_too = world.at_home("bo").await?;
    // Ada's client still knows one device; the server's answer makes it repair its list.
    assert!(ada.send(bo.address(), "after").await?.is_accepted());
    assert_eq!(bo.next_text().await?, "after");
    assert_eq!(bo_too.next_text().await?, "after");
    Ok(())
}

#[tokio::test]
async fn talking_to_ones_own_devices_works_and_providers_users_do_not_reach_each_other() -> anyhow::Result<()> {
    let world = World::start().await?;
    let (ada, mut ada_too) = (world.at_birdy("ada").await?, world.at_birdy("ada").await?);
    assert!(ada.send(ada.address(), "note to self").await?.is_accepted());
    let note = ada_too.wait_for("the note", |kind| match kind {
        EventKind::Message(message) => message.content.as_text().map(str::to_owned),
        EventKind::SentElsewhere(sent) => sent.content.as_text().map(str::to_owned),
        _ => None,
    });
    assert_eq!(note.await?, "note to self");

    let crow = causeway_tests::Provider::start(&world.net, "crow.example", causeway_tests::Kind::ThirdParty).await?;
    let carl = Device::opted_in(&world.net, &crow, "carl").await?;
    assert_eq!(ada.send(carl.address(), "psst").await?, SendResult::Rejected(super::consent::not_available()));
    Ok(())
}
