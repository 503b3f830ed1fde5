# SPDX-License-Identifier: Apache-2.0
"""Measures Airflow's DAG processor from outside, stock and with frostfork by the same code."""
