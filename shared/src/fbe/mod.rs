//! fbe
