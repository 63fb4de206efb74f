//! Tokens that were verified lately, so that their signature is not computed for each request.
//!
//! Only the signature is remembered: time, and whether account and pod are still there, are looked at each time, so a
//! revoked token is refused at once.

use std::collections::HashMap;

use jiff::Timestamp;
use parking_lot::Mutex;

use crate::tokens::{Refused, Verified};

/// More pods than this on one API server verify some signatures twice; an entry is about a kilobyte.
const MAX_TOKENS: usize = 4096;

/// Verified tokens by the digest of their text: the secrets themselves are not kept.
#[derive(Default)]
pub(super) struct TokenCache {
    tokens: Mutex<HashMap<[u8; 32], Verified>>,
}

impl TokenCache {
    /// The token's facts, if it is known and `check` finds that it still holds.
    pub(super) fn recheck(
        &self,
        digest: &[u8; 32],
        check: impl FnOnce(&mut Verified) -> Result<(), Refused>,
    ) -> Option<Result<Verified, Refused>> {
        let mut tokens = self.tokens.lock();
        let verified = tokens.get_mut(digest)?;
        match check(verified) {
            Ok(()) => Some(Ok(verified.clone())),
            Err(refused) => {
                tokens.remove(digest);
                Some(Err(refused))
            }
        }
    }

    /// Keeps the token; makes room when there are too many.
    pub(super) fn remember(&self, digest: [u8; 32], verified: Verified, now: Timestamp) {
        let mut tokens = self.tokens.lock();
        if tokens.len() >= MAX_TOKENS {
            tokens.retain(|_, known| known.expires > now);
        }
        if tokens.len() >= MAX_TOKENS {
            // All are alive: start over, which costs each of them one verification.
            tokens.clear();
        }
        tokens.insert(digest, verified);
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.tokens.lock().len()
    }
}
