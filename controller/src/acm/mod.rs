//! Certificates of apps' domains, on their way from the store to the routers.

mod feed;
