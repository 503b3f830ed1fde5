# SPDX-License-Identifier: Apache-2.0
"""The Airflow adapter. It imports nothing here, because every Airflow process imports it for ``policy``."""
