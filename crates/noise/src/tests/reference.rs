//! Our primitives against snow's own, in both roles: whoever computes with which, the bytes are the same.

use std::hint::black_box;

use proptest::prelude::*;
use snow::params::{CipherChoice, DHChoice, HashChoice};
use snow::resolvers::{CryptoResolver, DefaultResolver};
use snow::types::{Cipher, Dh, Hash, Random};
use snow::{Builder, HandshakeState, StatelessTransportState};

use super::measure::medians;
use super::vectors::Fixed;
use super::{PATTERNS, SUITES};
use crate::crypto::{Ephemeral, Resolver};
use crate::preamble::noise_name;
use crate::{Pattern, StaticKey, Suite};

/// Whose primitives a side computes with.
#[derive(Debug, Clone, Copy)]
enum Primitives {
    Ours,
    Snows,
}

const BOTH: [Primitives; 2] = [Primitives::Ours, Primitives::Snows];

/// What a session is made of, apart from whose primitives make it.
#[derive(Debug, Clone)]
struct Plan {
    pattern: Pattern,
    suite: Suite,
    prologue: Vec<u8>,
    client: Side,
    server: Side,
    /// Payloads of the handshake and then of transport messages, which take turns. Three at least.
    payloads: Vec<Vec<u8>>,
}

#[derive(Debug, Clone)]
struct Side {
    private: [u8; 32],
    ephemeral: [u8; 32],
}

impl Plan {
    fn initiator(&self, primitives: Primitives) -> HandshakeState {
        let server_key = *StaticKey::from_bytes(self.server.private).public();
        let builder = self.builder(&StaticKey::from_bytes(self.client.private), &self.client, primitives);
        match self.pattern {
            Pattern::Ik => builder.remote_public_key(&server_key).unwrap().build_initiator().unwrap(),
            Pattern::Xx => builder.build_initiator().unwrap(),
        }
    }

    /// `key` is the server's, which is made ready once for all handshakes.
    fn responder(&self, key: &StaticKey, primitives: Primitives) -> HandshakeState {
        self.builder(key, &self.server, primitives).build_responder().unwrap()
    }

    fn builder<'a>(&'a self, key: &StaticKey, side: &'a Side, primitives: Primitives) -> Builder<'a> {
        let params = noise_name(self.pattern, self.suite).parse().unwrap();
        let resolver: Box<dyn CryptoResolver + Send> = match primitives {
            Primitives::Ours => {
                Box::new(Resolver::new(key.pair().clone(), Ephemeral::draw(&mut Fixed(side.ephemeral))))
            }
            Primitives::Snows => Box::new(Reference(side.ephemeral)),
        };
        let builder = Builder::with_resolver(params, resolver).local_private_key(&side.private).unwrap();
        builder.prologue(&self.prologue).unwrap()
    }

    /// Both ends of an established session.
    fn sessions(&self, primitives: Primitives) -> (StatelessTransportState, StatelessTransportState) {
        let key = StaticKey::from_bytes(self.server.private);
        let (mut client, mut server) = (self.initiator(primitives), self.responder(&key, primitives));
        while !client.is_handshake_finished() {
            let (from, to) = if client.is_my_turn() { (&mut client, &mut server) } else { (&mut server, &mut client) };
            let mut message = [0; 256];
            let len = from.write_message(&[], &mut message).unwrap();
            to.read_message(&message[..len], &mut [0; 256]).unwrap();
        }
        (client.into_stateless_transport_mode().unwrap(), server.into_stateless_transport_mode().unwrap())
    }

    /// Every message of the session, and the handshake's hash.
    fn run(&self, client: Primitives, server: Primitives) -> (Vec<Vec<u8>>, Vec<u8>) {
        let key = StaticKey::from_bytes(self.server.private);
        let (mut client, mut server) = (self.initiator(client), self.responder(&key, server));
        let mut wire = Vec::new();
        let mut payloads = self.payloads.iter();
        while !client.is_handshake_finished() {
            let payload = payloads.next().unwrap();
            let clients_turn = client.is_my_turn();
            let (from, to) = if clients_turn { (&mut client, &mut server) } else { (&mut server, &mut client) };
            let mut message = vec![0; payload.len() + 96];
            let len = from.write_message(payload, &mut message).unwrap();
            message.truncate(len);
            let mut opened = vec![0; message.len()];
            let len = to.read_message(&message, &mut opened).unwrap();
            assert_eq!(&opened[..len], payload);
            wire.push(message);
        }
        assert_eq!(client.get_handshake_hash(), server.get_handshake_hash());
        assert_eq!(server.get_remote_static().unwrap(), StaticKey::from_bytes(self.client.private).public());
        assert_eq!(client.get_remote_static().unwrap(), StaticKey::from_bytes(self.server.private).public());
        let hash = client.get_handshake_hash().to_vec();
        let client = client.into_stateless_transport_mode().unwrap();
        let server = server.into_stateless_transport_mode().unwrap();
        for (nonce, payload) in payloads.enumerate() {
            wire.push(transport(&client, &server, nonce as u64, payload));
            wire.push(transport(&server, &client, u64::MAX - 1 - nonce as u64, payload));
        }
        (wire, hash)
    }
}

fn transport(from: &StatelessTransportState, to: &StatelessTransportState, nonce: u64, payload: &[u8]) -> Vec<u8> {
    let mut message = vec![0; payload.len() + 16];
    assert_eq!(from.write_message(nonce, payload, &mut message).unwrap(), message.len());
    let mut opened = vec![0; payload.len()];
    assert_eq!(to.read_message(nonce, &message, &mut opened).unwrap(), payload.len());
    assert_eq!(opened, payload);
    message
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn both_understand_each_other_in_both_roles_and_say_the_same(plan in plans()) {
        let expected = plan.run(Primitives::Snows, Primitives::Snows);
        for client in BOTH {
            for server in BOTH {
                prop_assert_eq!(&plan.run(client, server), &expected, "{:?} with {:?}", client, server);
            }
        }
    }
}

/// For docs/performance.md, like the others in the module `measure`: both in one run.
#[test]
fn measure_primitives() {
    let side = |byte| Side { private: [byte; 32], ephemeral: [byte + 1; 32] };
    let payloads = vec![vec![1; 400]; 3];
    for pattern in PATTERNS {
        let plan = Plan {
            pattern,
            suite: Suite::AesGcm,
            prologue: vec![0; 8],
            client: side(1),
            server: side(3),
            payloads: payloads.clone(),
        };
        let (wire, _) = plan.run(Primitives::Ours, Primitives::Ours);
        let key = StaticKey::from_bytes(plan.server.private);
        let respond = |primitives| {
            let (plan, wire, key) = (&plan, &wire, &key);
            Box::new(move || {
                let mut server = plan.responder(key, primitives);
                let mut out = [0; 1024];
                server.read_message(&wire[0], &mut out).unwrap();
                server.write_message(&plan.payloads[1], &mut out).unwrap();
                if plan.pattern == Pattern::Xx {
                    server.read_message(&wire[2], &mut out).unwrap();
                }
                black_box(server.into_stateless_transport_mode().unwrap());
            })
        };
        let [snows, ours] = medians(300, [respond(Primitives::Snows), respond(Primitives::Ours)]);
        println!("{pattern:?} responder: {:.1} us with snow's own, {:.1} us with ours", snows / 1e3, ours / 1e3);
    }
    for suite in SUITES {
        let plan = Plan {
            pattern: Pattern::Xx,
            suite,
            prologue: Vec::new(),
            client: side(1),
            server: side(3),
            payloads: payloads.clone(),
        };
        for size in [100, 400, 1_500, 16_000] {
            let exchange = |primitives| {
                let (client, server) = plan.sessions(primitives);
                let (payload, mut message, mut opened) = (vec![7; size], vec![0; size + 16], vec![0; size]);
                let mut nonce = 0;
                Box::new(move || {
                    client.write_message(nonce, &payload, &mut message).unwrap();
                    server.read_message(nonce, &message, &mut opened).unwrap();
                    nonce += 1;
                })
            };
            let calls = 40_000_000 / (4_000 + 10 * size as u32);
            let [snows, ours] = medians(calls, [exchange(Primitives::Snows), exchange(Primitives::Ours)]);
            println!(
                "{suite:?} message of {size} bytes, both ends: {snows:.0} ns with snow's own, {ours:.0} ns with ours"
            );
        }
    }
}

fn plans() -> impl Strategy<Value = Plan> {
    let side = || (any::<[u8; 32]>(), any::<[u8; 32]>()).prop_map(|(private, ephemeral)| Side { private, ephemeral });
    let payload = prop_oneof![8 => 0_usize..700, 1 => 60_000_usize..=65_535 - 96];
    let payload = (payload, any::<u8>()).prop_map(|(len, byte)| vec![byte; len]);
    (
        (prop::sample::select(&PATTERNS[..]), prop::sample::select(&SUITES[..])),
        prop::collection::vec(any::<u8>(), 0..100),
        (side(), side()),
        prop::collection::vec(payload, 3..7),
    )
        .prop_map(|((pattern, suite), prologue, (client, server), payloads)| Plan {
            pattern,
            suite,
            prologue,
            client,
            server,
            payloads,
        })
}

/// snow's own primitives, with a given ephemeral key.
struct Reference([u8; 32]);

impl CryptoResolver for Reference {
    fn resolve_rng(&self) -> Option<Box<dyn Random>> {
        Some(Box::new(Given(self.0)))
    }

    fn resolve_dh(&self, choice: &DHChoice) -> Option<Box<dyn Dh>> {
        DefaultResolver.resolve_dh(choice)
    }

    fn resolve_hash(&self, choice: &HashChoice) -> Option<Box<dyn Hash>> {
        DefaultResolver.resolve_hash(choice)
    }

    fn resolve_cipher(&self, choice: &CipherChoice) -> Option<Box<dyn Cipher>> {
        DefaultResolver.resolve_cipher(choice)
    }
}

struct Given([u8; 32]);

impl Random for Given {
    fn try_fill_bytes(&mut self, dest: &mut [u8]) -> Result<(), snow::Error> {
        dest.copy_from_slice(&self.0);
        Ok(())
    }
}
