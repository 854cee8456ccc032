//! An edge and its sessions, as far as routing sees them.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use causeway_proto::routing::v1::edge_event::Event as ToRouting;
use causeway_proto::routing::v1::routing_client::RoutingClient;
use causeway_proto::routing::v1::routing_event::Event;
use causeway_proto::routing::v1::{Attach, Attached, Detach, EdgeEvent, FromEdge, LoginOrder, RoutingEvent, Submitted};
use causeway_proto::wire::v1::{
    Delivery, Enc, EncType, End, EndReason, MessageClass, Notification, Outcome, Rejection, Status, Submit,
};
use causeway_runtime::grpc::{Channel, Ear};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

use crate::records::fake::PATIENCE;

type Sessions = Arc<Mutex<HashMap<Bytes, mpsc::UnboundedSender<Event>>>>;

/// How a link is spoken on: by the stream, or at once, as an edge in routing's process does.
#[derive(Clone)]
struct Outgoing {
    stream: mpsc::Sender<FromEdge>,
    ear: Arc<Mutex<Option<Ear<EdgeEvent>>>>,
}

/// One link.
pub(super) struct Edge {
    outgoing: Outgoing,
    sessions: Sessions,
    reader: tokio::task::JoinHandle<()>,
    /// Who answered.
    pub(super) name: String,
    draining: tokio::sync::watch::Receiver<bool>,
}

/// A session on it.
pub(super) struct Phone {
    pub(super) id: Bytes,
    outgoing: Outgoing,
    events: mpsc::UnboundedReceiver<Event>,
}

static NEXT_SESSION: std::sync::atomic::AtomicU64 = std::sync::atomic::AtomicU64::new(1);

impl Edge {
    /// An edge in the process of the routing.
    pub(super) async fn link(client: RoutingClient<Channel>) -> Self {
        Self::start_link(client, true).await
    }

    /// An edge in another process.
    pub(super) async fn link_from_afar(client: RoutingClient<Channel>) -> Self {
        Self::start_link(client, false).await
    }

    async fn start_link(mut client: RoutingClient<Channel>, is_here: bool) -> Self {
        let (stream, batches) = mpsc::channel(1_024);
        let sessions = Sessions::default();
        let mut request = tonic::Request::new(ReceiverStream::new(batches));
        if is_here {
            let hearing = Arc::clone(&sessions);
            request.extensions_mut().insert(Ear::new(move |event| hear(&hearing, event)));
        }
        let response = client.link(request).await.unwrap();
        let ear = Ear::of(response.extensions());
        assert_eq!(ear.is_some(), is_here);
        let outgoing = Outgoing { stream, ear: Arc::new(Mutex::new(ear)) };
        let ended = Ended(Arc::clone(&outgoing.ear), Arc::clone(&sessions));
        let mut incoming = response.into_inner();
        let first = incoming.message().await.unwrap().unwrap();
        let name = first.hello.expect("a stream begins with who answers").name;
        let (drained, draining) = tokio::sync::watch::channel(false);
        let known = Arc::clone(&sessions);
        let reader = tokio::spawn(async move {
            while let Ok(Some(batch)) = incoming.message().await {
                if batch.draining {
                    drained.send_replace(true);
                }
                batch.events.into_iter().for_each(|event| hear(&known, event));
            }
            drop(ended);
        });
        Self { outgoing, sessions, reader, name, draining }
    }

    /// Attaches a device; its registration is 100 + its id.
    pub(super) async fn attach(&self, address: &str, account: u8, device: u32) -> Phone {
        let mut phone = self.start(address, account, device, 100 + device).await;
        phone.attached().await;
        phone
    }

    /// Sends an attach without waiting for its answer.
    pub(super) async fn start(&self, address: &str, account: u8, device: u32, registration_id: u32) -> Phone {
        let phone = self.phone();
        phone.send(ToRouting::Attach(attach(address, account, device, registration_id))).await;
        phone
    }

    /// A session that is not attached.
    pub(super) fn phone(&self) -> Phone {
        let number = NEXT_SESSION.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let id = Bytes::copy_from_slice(&u128::from(number).to_be_bytes());
        let (to, events) = mpsc::unbounded_channel();
        self.sessions.lock().unwrap().insert(id.clone(), to);
        Phone { id, outgoing: self.outgoing.clone(), events }
    }

    /// A session that may only submit; its device is 1.
    pub(super) async fn introduce(&self, address: &str, account: u8) -> Phone {
        let phone = self.phone();
        phone.introduce(address, account).await;
        phone
    }

    /// The same session, as this link knows it.
    pub(super) fn same(&self, phone: &Phone) -> Phone {
        let (to, events) = mpsc::unbounded_channel();
        self.sessions.lock().unwrap().insert(phone.id.clone(), to);
        Phone { id: phone.id.clone(), outgoing: self.outgoing.clone(), events }
    }

    /// Resolves when routing says that it takes nothing more.
    pub(super) async fn drains(&self) {
        let mut draining = self.draining.clone();
        tokio::time::timeout(PATIENCE, draining.wait_for(|draining| *draining)).await.unwrap().unwrap();
    }

    /// The link breaks.
    pub(super) fn cut(self) {
        self.reader.abort();
    }
}

/// The link is over: nobody speaks on it or is told anything.
struct Ended(Arc<Mutex<Option<Ear<EdgeEvent>>>>, Sessions);

impl Drop for Ended {
    fn drop(&mut self) {
        self.0.lock().unwrap().take();
        self.1.lock().unwrap().clear();
    }
}

fn hear(sessions: &Sessions, event: RoutingEvent) {
    if let (Some(to), Some(event)) = (sessions.lock().unwrap().get(&event.session_id), event.event) {
        let _left = to.send(event);
    }
}

impl Phone {
    pub(super) async fn send(&self, event: ToRouting) {
        let event = EdgeEvent { session_id: self.id.clone(), event: Some(event) };
        let ear = self.outgoing.ear.lock().unwrap().clone();
        match ear {
            Some(ear) => ear.hear(event),
            None => {
                let _link_lost = self.outgoing.stream.send(FromEdge { events: vec![event] }).await;
            }
        }
    }

    pub(super) async fn introduce(&self, address: &str, account: u8) {
        let introduced = Attach { submits_only: true, ..attach(address, account, 1, 101) };
        self.send(ToRouting::Attach(introduced)).await;
    }

    /// Attaches a device that has attached before, as this number.
    pub(super) async fn attach_again(&self, address: &str, account: u8, device: u32, number: u64) {
        let again = Attach { number, ..attach(address, account, device, 100 + device) };
        self.send(ToRouting::Attach(again)).await;
    }

    /// Attaches a device as that login, in that attachment of it, and with the number that it has, if any.
    pub(super) async fn attach_as(&self, address: &str, account: u8, login: (u64, u64, u32), number: u64) {
        let (source, order, attachment) = login;
        let login = Some(LoginOrder { source, number: order, attachment });
        let attach = Attach { number, login, ..attach(address, account, 1, 101) };
        self.send(ToRouting::Attach(attach)).await;
    }

    pub(super) async fn submit(&self, message: Submit) {
        self.send(ToRouting::Submit(Submitted { message: Some(message), ..Submitted::default() })).await;
    }

    pub(super) async fn processed(&self, tag: u64) {
        self.send(ToRouting::Processed(tag)).await;
    }

    pub(super) async fn detach(self) {
        self.send(ToRouting::Detach(Detach {})).await;
    }

    /// Submits and waits for the outcome.
    pub(super) async fn tell(&mut self, message: Submit) -> Outcome {
        self.submit(message).await;
        self.outcome().await
    }

    /// The next event; `None` when the link is gone.
    pub(super) async fn next(&mut self) -> Option<Event> {
        tokio::time::timeout(PATIENCE, self.events.recv()).await.expect("nothing came")
    }

    pub(super) fn try_next(&mut self) -> Option<Event> {
        self.events.try_recv().ok()
    }

    pub(super) async fn attached(&mut self) -> u64 {
        self.attached_as().await.waiting
    }

    pub(super) async fn attached_as(&mut self) -> Attached {
        match self.next().await {
            Some(Event::Attached(attached)) => attached,
            other => panic!("not attached: {other:?}"),
        }
    }

    pub(super) async fn moves(&mut self) {
        let event = self.next().await;
        assert!(matches!(event, Some(Event::Moved(_))), "not moved: {event:?}");
    }

    pub(super) async fn delivery(&mut self) -> Delivery {
        match self.next().await {
            Some(Event::Deliver(delivery)) => delivery,
            other => panic!("no delivery: {other:?}"),
        }
    }

    /// Takes a delivery and acknowledges it.
    pub(super) async fn take(&mut self) -> Delivery {
        let delivery = self.delivery().await;
        self.processed(delivery.tag).await;
        delivery
    }

    pub(super) async fn outcome(&mut self) -> Outcome {
        match self.next().await {
            Some(Event::Outcome(outcome)) => outcome,
            other => panic!("no outcome: {other:?}"),
        }
    }

    pub(super) async fn notification(&mut self) -> Notification {
        match self.next().await {
            Some(Event::Notify(notification)) => notification,
            other => panic!("no notification: {other:?}"),
        }
    }

    pub(super) async fn end(&mut self) -> End {
        match self.next().await {
            Some(Event::End(end)) => end,
            other => panic!("no end: {other:?}"),
        }
    }

    pub(super) async fn ends(&mut self, reason: EndReason) {
        assert_eq!(self.end().await.reason(), reason);
    }
}

pub(super) fn attach(address: &str, account: u8, device_id: u32, registration_id: u32) -> Attach {
    Attach {
        account_id: Bytes::copy_from_slice(&[account; 16]),
        device_id,
        registration_id,
        address: address.to_owned(),
        provider_domain: address.rsplit('@').next().unwrap().to_owned(),
        ..Attach::default()
    }
}

/// A chat message: id, recipient, devices.
pub(super) fn chat(id: u64, to: &str, devices: &[u32]) -> Submit {
    let enc = devices.iter().map(|&device| Enc {
        device,
        reg: 100 + device,
        r#type: EncType::Whisper.into(),
        ciphertext: Bytes::from(format!("{id} for {device}")),
    });
    Submit { id: message_id(id), to: to.to_owned(), class: MessageClass::Chat.into(), enc: enc.collect() }
}

pub(super) fn of_class(class: MessageClass, message: Submit) -> Submit {
    Submit { class: class.into(), ..message }
}

pub(super) fn message_id(id: u64) -> Bytes {
    Bytes::copy_from_slice(&u128::from(id).to_be_bytes())
}

/// The number in a message's id.
pub(super) fn number(id: &Bytes) -> u64 {
    u64::from_be_bytes(id[8..].try_into().unwrap())
}

pub(super) fn assert_status(outcome: &Outcome, status: Status) {
    assert_eq!(outcome.status(), status, "{outcome:?}");
}

pub(super) fn assert_rejected(outcome: &Outcome, reason: Rejection) {
    assert_eq!((outcome.status(), outcome.reason()), (Status::Rejected, reason), "{outcome:?}");
}
