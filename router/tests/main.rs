//! A router between real clients and real instances.

mod certificates;
mod clients;
mod compression;
mod corpus;
mod faults;
mod files;
mod frames;
mod http2;
mod introduced;
mod on_demand;
mod pages;
mod passing;
mod places;
mod ports;
mod restart;
mod retries;
mod rules;
mod sleep;
mod ssh;
mod streams;
mod swaps;
mod takeover;
mod tls;
mod traffic;
mod world;
