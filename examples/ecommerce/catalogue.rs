//! What the shop sells. To add a product, add a line.

use crate::money::Money;

/// A product as the catalogue lists it; how many are left is the inventory's business.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Product {
    pub(crate) id: u32,
    pub(crate) name: &'static str,
    /// For one, tax included.
    pub(crate) price: Money,
    /// How many there are when the shop opens for the first time.
    pub(crate) opening_stock: u32,
}

/// Everything that is for sale: id, name, price in cents, stock.
pub(crate) const PRODUCTS: &[Product] = &[
    product(1, "Widget A", 5000, 100),
    product(2, "Widget B", 7500, 50),
    product(3, "Gadget", 12_990, 25),
    product(4, "Gizmo", 1995, 250),
    product(5, "Sprocket, pack of ten", 750, 500),
    product(6, "Limited edition doohickey", 24_900, 3),
];

/// The product with an id.
pub(crate) fn find(id: u32) -> Option<&'static Product> {
    PRODUCTS.iter().find(|product| product.id == id)
}

const fn product(id: u32, name: &'static str, cents: u32, opening_stock: u32) -> Product {
    Product { id, name, price: Money::from_cents(cents), opening_stock }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::expect_used, clippy::unwrap_used)]

    use std::collections::HashSet;

    use super::*;

    #[test]
    fn every_product_has_an_id_of_its_own() {
        let ids: HashSet<u32> = PRODUCTS.iter().map(|product| product.id).collect();
        assert_eq!(ids.len(), PRODUCTS.len());
    }
}
