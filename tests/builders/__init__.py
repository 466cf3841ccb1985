"""What tests are made of: small cases, records and random audits."""
