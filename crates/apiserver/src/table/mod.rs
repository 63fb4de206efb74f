//! The columns that `kubectl get` shows, for each kind.

use coracle_api::kinds::Kind;
use serde_json::Value;
