//! What every component that watches the API shares: mirrors, work queues, events, leases.
