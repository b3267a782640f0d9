"""One vocabulary for two servers that speak different dialects: schema, rules, alerts, dashboards."""
