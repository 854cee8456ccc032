//! Who gets what: consent, fan-out, live delivery, mailbox, acks
