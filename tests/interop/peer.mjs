// A user's device on Signal's own library, driven by JSON lines: one request on standard input, one answer on standard
// output. All state is in memory. Bytes are base64.
//
//   node peer.mjs libsignal-newest
//   {"do":"keys"} -> the public keys to enlist with
//   {"do":"encrypt","local":{name,device},"to":{name,device},"bundle":..,"text":b} -> {"type":"prekey"|"whisper","ciphertext":b}
//   {"do":"decrypt","local":..,"from":..,"type":..,"ciphertext":b} -> {"plaintext":b,"kyber":[ids used]}

import { createInterface } from 'node:readline';
import { randomInt } from 'node:crypto';

const signal = await import(process.argv[2]);
const ONE_TIME_KEYS = 3;

// The newest release also asks for the local address, behind the remote one: the one difference between the releases in
// what is used here. Messages and keys are the same on the wire.
const asksForLocalAddress = signal.signalDecrypt.length >= 5;
const localOf = ({ local }) => (asksForLocalAddress ? [signal.ProtocolAddress.new(local.name, local.device)] : []);

const b64 = (bytes) => Buffer.from(bytes).toString('base64');
const bytes = (text) => Buffer.from(text, 'base64');
const name = (address) => `${address.name()}.${address.deviceId()}`;

class Sessions extends signal.SessionStore {
  kept = new Map();
  async saveSession(address, record) { this.kept.set(name(address), record.serialize()); }
  async getSession(address) {
    const kept = this.kept.get(name(address));
    return kept ? signal.SessionRecord.deserialize(kept) : null;
  }
  async getExistingSessions(addresses) { return Promise.all(addresses.map((address) => this.getSession(address))); }
}

class Identities extends signal.IdentityKeyStore {
  own = signal.PrivateKey.generate();
  registration = randomInt(1, 16381);
  known = new Map();
  async getIdentityKey() { return this.own; }
  async getIdentityKeyPair() { return new signal.IdentityKeyPair(this.own.getPublicKey(), this.own); }
  async getLocalRegistrationId() { return this.registration; }
  async saveIdentity(address, key) {
    const before = this.known.get(name(address));
    this.known.set(name(address), key);
    const replaced = before !== undefined && b64(before.serialize()) !== b64(key.serialize());
    return replaced ? signal.IdentityChange.ReplacedExisting : signal.IdentityChange.NewOrUnchanged;
  }
  async isTrustedIdentity(address, key) {
    const known = this.known.get(name(address));
    return known === undefined || b64(known.serialize()) === b64(key.serialize());
  }
  async getIdentity(address) { return this.known.get(name(address)) ?? null; }
}

class OneTimeKeys extends signal.PreKeyStore {
  kept = new Map();
  async savePreKey(id, record) { this.kept.set(id, record.serialize()); }
  async getPreKey(id) { return signal.PreKeyRecord.deserialize(this.kept.get(id)); }
  async removePreKey(id) { this.kept.delete(id); }
}

class SignedKeys extends signal.SignedPreKeyStore {
  kept = new Map();
  async saveSignedPreKey(id, record) { this.kept.set(id, record.serialize()); }
  async getSignedPreKey(id) { return signal.SignedPreKeyRecord.deserialize(this.kept.get(id)); }
}

class KyberKeys extends signal.KyberPreKeyStore {
  kept = new Map();
  used = [];
  async saveKyberPreKey(id, record) { this.kept.set(id, record.serialize()); }
  async getKyberPreKey(id) { return signal.KyberPreKeyRecord.deserialize(this.kept.get(id)); }
  async markKyberPreKeyUsed(id) { this.used.push(id); }
}

const sessions = new Sessions();
const identities = new Identities();
const oneTime = new OneTimeKeys();
const signed = new SignedKeys();
const kyber = new KyberKeys();

async function makeKyber(id) {
  const pair = signal.KEMKeyPair.generate();
  const publicKey = pair.getPublicKey().serialize();
  const signature = identities.own.sign(publicKey);
  await kyber.saveKyberPreKey(id, signal.KyberPreKeyRecord.new(id, Date.now(), pair, signature));
  return { id, public_key: b64(publicKey), signature: b64(signature) };
}

async function makeKeys() {
  const pair = signal.PrivateKey.generate();
  const publicKey = pair.getPublicKey();
  const signature = identities.own.sign(publicKey.serialize());
  await signed.saveSignedPreKey(1, signal.SignedPreKeyRecord.new(1, Date.now(), publicKey, pair, signature));
  const ec = [];
  const kyberKeys = [];
  for (let id = 1; id <= ONE_TIME_KEYS; id += 1) {
    const key = signal.PrivateKey.generate();
    await oneTime.savePreKey(id, signal.PreKeyRecord.new(id, key.getPublicKey(), key));
    ec.push({ id, public_key: b64(key.getPublicKey().serialize()) });
    kyberKeys.push(await makeKyber(id));
  }
  return {
    registration_id: identities.registration,
    identity_key: b64(identities.own.getPublicKey().serialize()),
    signed_prekey: { id: 1, public_key: b64(publicKey.serialize()), signature: b64(signature) },
    last_resort_kyber: await makeKyber(1000),
    ec_prekeys: ec,
    kyber_prekeys: kyberKeys,
  };
}

async function encrypt(request) {
  const { to, bundle, text } = request;
  const local = localOf(request);
  const address = signal.ProtocolAddress.new(to.name, to.device);
  if (bundle) {
    const { ec_prekey: ec, signed_prekey: signedKey, kyber_prekey: kyberKey } = bundle;
    const made = signal.PreKeyBundle.new(
      bundle.registration_id,
      to.device,
      ec ? ec.id : null,
      ec ? signal.PublicKey.deserialize(bytes(ec.public_key)) : null,
      signedKey.id,
      signal.PublicKey.deserialize(bytes(signedKey.public_key)),
      bytes(signedKey.signature),
      signal.PublicKey.deserialize(bytes(bundle.identity_key)),
      kyberKey.id,
      signal.KEMPublicKey.deserialize(bytes(kyberKey.public_key)),
      bytes(kyberKey.signature),
    );
    await signal.processPreKeyBundle(made, address, ...local, sessions, identities);
  }
  const message = await signal.signalEncrypt(bytes(text), address, ...local, sessions, identities);
  const type = message.type() === signal.CiphertextMessageType.PreKey ? 'prekey' : 'whisper';
  return { type, ciphertext: b64(message.serialize()) };
}

async function decrypt(request) {
  const { from, type, ciphertext } = request;
  const local = localOf(request);
  const address = signal.ProtocolAddress.new(from.name, from.device);
  let plaintext;
  if (type === 'prekey') {
    const message = signal.PreKeySignalMessage.deserialize(bytes(ciphertext));
    plaintext = await signal.signalDecryptPreKey(
      message, address, ...local, sessions, identities, oneTime, signed, kyber);
  } else {
    const message = signal.SignalMessage.deserialize(bytes(ciphertext));
    plaintext = await signal.signalDecrypt(message, address, ...local, sessions, identities);
  }
  return { plaintext: b64(plaintext), kyber: kyber.used };
}

const verbs = { keys: makeKeys, encrypt, decrypt };
for await (const line of createInterface({ input: process.stdin })) {
  const request = JSON.parse(line);
  try {
    console.log(JSON.stringify(await verbs[request.do](request)));
  } catch (error) {
    console.log(JSON.stringify({ error: String(error) }));
  }
}
