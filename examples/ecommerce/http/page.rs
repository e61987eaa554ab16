//! The storefront and the page of whoever looks after it, in the program itself.

use axum::http::HeaderName;
use axum::http::header::{CONTENT_SECURITY_POLICY, CONTENT_TYPE};

/// Nothing from elsewhere, no inline script: what a customer types can never become code.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; \
    connect-src 'self'; img-src data:; base-uri 'none'; form-action 'none'; \
    frame-ancestors 'none'";

type Asset = ([(HeaderName, &'static str); 2], &'static str);

/// `GET /`
pub(super) async fn index() -> Asset {
    asset("text/html; charset=utf-8", include_str!("../storefront/index.html"))
}

pub(super) async fn style() -> Asset {
    asset("text/css; charset=utf-8", include_str!("../storefront/style.css"))
}

pub(super) async fn script() -> Asset {
    asset("text/javascript; charset=utf-8", include_str!("../storefront/app.js"))
}

/// `GET /admin`
pub(super) async fn admin() -> Asset {
    asset("text/html; charset=utf-8", include_str!("../storefront/admin.html"))
}

pub(super) async fn admin_style() -> Asset {
    asset("text/css; charset=utf-8", include_str!("../storefront/admin.css"))
}

pub(super) async fn admin_script() -> Asset {
    asset("text/javascript; charset=utf-8", include_str!("../storefront/admin.js"))
}

fn asset(content_type: &'static str, text: &'static str) -> Asset {
    ([(CONTENT_TYPE, content_type), (CONTENT_SECURITY_POLICY, POLICY)], text)
}
