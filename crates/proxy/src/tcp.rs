//! Proxies connections as TCP.

mod pump;
