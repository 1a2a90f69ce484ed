//! The Merkle tree: `cargo bench -p ledger`.

use std::hint::black_box;

use criterion::{Criterion, criterion_group, criterion_main};
use events::LeafHash;
use ledger::merkle::tree::perfect;

fn tree(criterion: &mut Criterion) {
    let leaves: Vec<_> = (0..256_u32)
        .map(|n| LeafHash::of(&n.to_be_bytes()).0)
        .collect();
    criterion.bench_function("hash over 256 leaves", |bencher| {
        bencher.iter(|| perfect(black_box(&leaves)));
    });
}

criterion_group!(benches, tree);
criterion_main!(benches);
