//! Service networking: the proxy behind virtual addresses.
