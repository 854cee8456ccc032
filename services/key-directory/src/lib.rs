//! Who is who: providers, token keys, accounts, devices, prekeys, consent
