//! A stand-in provider: OIDC discovery, JWKS, tokens, push webhook receiver, media host
